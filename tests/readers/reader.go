// A provider in Go, as far as it reads: bodies come on standard input, each behind its length in four bytes, and a line
// for each says what was read.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"os"
)

type body struct {
	Model         string `json:"model"`
	Stream        bool   `json:"stream"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	N                   *float64 `json:"n"`
	MaxTokens           *float64 `json:"max_tokens"`
	MaxCompletionTokens *float64 `json:"max_completion_tokens"`
	Messages            []struct {
		Content json.RawMessage `json:"content"`
	} `json:"messages"`
}

type part struct {
	Type string `json:"type"`
}

// What was read, in the order that main.rs names.
func reading(text []byte) any {
	var read body
	if json.Unmarshal(text, &read) != nil {
		return nil
	}
	images := false
	for _, message := range read.Messages {
		var parts []part
		if len(message.Content) == 0 || message.Content[0] != '[' {
			continue
		}
		if json.Unmarshal(message.Content, &parts) != nil {
			return nil
		}
		for _, part := range parts {
			images = images || part.Type == "image_url" || part.Type == "input_image"
		}
	}
	return []any{read.Model, read.Stream, read.StreamOptions.IncludeUsage, whole(read.N), whole(read.MaxTokens),
		whole(read.MaxCompletionTokens), images}
}

// Beyond 2^53 readers differ by rounding, and no model is that long.
func whole(number *float64) any {
	if number == nil {
		return nil
	}
	return math.Min(*number, 1<<53)
}

func main() {
	in := bufio.NewReader(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	lines := json.NewEncoder(out)
	for {
		var length uint32
		if binary.Read(in, binary.BigEndian, &length) != nil {
			return
		}
		text := make([]byte, length)
		if _, err := io.ReadFull(in, text); err != nil {
			panic(err)
		}
		if err := lines.Encode([]any{reading(text)}); err != nil {
			panic(err)
		}
	}
}
