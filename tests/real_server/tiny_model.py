"""Writes a small model with random weights for llama-server: `tiny_model.py FILE`.

Its text means nothing; it is the behaviour of the server that is tested. Every weight comes from one seed. At
temperature 0 it goes on for ever in printable letters: only they have rows in the output matrix, so that the end
of a text is never the likeliest token.

It must never need a download.
"""

import sys

import gguf
import numpy

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,!?"
#: Large enough for a token to take some milliseconds.
WIDTH, LAYERS, HEADS, INNER, CONTEXT = 512, 12, 8, 1536, 8192
TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant:"


def main(path):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny random model")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    tokens = add_vocabulary(writer)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in tensors(tokens):
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_vocabulary(writer):
    """The tokens: three special ones, every byte, a space, the letters."""
    kinds = gguf.TokenType
    tokens = [("<unk>", kinds.UNKNOWN), ("<s>", kinds.CONTROL), ("</s>", kinds.CONTROL)]
    tokens += [(f"<0x{byte:02X}>", kinds.BYTE) for byte in range(256)]
    tokens += [(letter, kinds.NORMAL) for letter in "\u2581" + LETTERS]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_scores([0.0 if kind != kinds.NORMAL else -1.0 for _, kind in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    return len(tokens)


def tensors(tokens):
    chance = numpy.random.default_rng(7)

    def weights(rows, columns):
        return (chance.standard_normal((rows, columns), dtype=numpy.float32) / columns**0.5).astype(numpy.float16)

    ones = numpy.ones(WIDTH, dtype=numpy.float32)
    yield "token_embd.weight", weights(tokens, WIDTH)
    yield "output_norm.weight", ones
    output = weights(tokens, WIDTH)
    output[: tokens - len(LETTERS)] = 0
    yield "output.weight", output
    for layer in range(LAYERS):
        yield f"blk.{layer}.attn_norm.weight", ones
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"blk.{layer}.{part}.weight", weights(WIDTH, WIDTH)
        yield f"blk.{layer}.ffn_norm.weight", ones
        yield f"blk.{layer}.ffn_gate.weight", weights(INNER, WIDTH)
        yield f"blk.{layer}.ffn_up.weight", weights(INNER, WIDTH)
        yield f"blk.{layer}.ffn_down.weight", weights(WIDTH, INNER)


if __name__ == "__main__":
    main(sys.argv[1])
