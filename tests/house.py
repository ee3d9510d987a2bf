"""The shape of the source: `make house`.

Prints what a reader has to get through: the files of a chat request, long functions and files, modules,
repeated lines, and files of one module that import each other. Exits with 1 when a bound is broken. It only
reads `src`, and never judges style: what the compiler, clippy or `tests/architecture.rs` can say is theirs.

Start reading in `SPINE` and in `main`. `python3 tests/house.py --self-test` tries the readers on snippets.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent

# The files that put a chat request through its steps or decide over it, in the order in which they run, with what
# each does. Left out is what a reader takes as given: values without steps of their own (ids, money, the state of
# a request), shared scanners and framing of bytes and JSON, choices and locks behind one call that returns a value,
# telemetry, and accepting a connection. A streamed answer adds upstream/stream.rs, upstream/body.rs and http/ending.rs.
SPINE = [
    ("http/mod.rs", "route"),
    ("http/ingress.rs", "receive"),
    ("relay/mod.rs", "serve"),
    ("protocol/chat/request.rs", "parse"),
    ("domain/authorize.rs", "authorize"),
    ("domain/routing/builder.rs", "collect"),
    ("relay/spend.rs", "hold"),
    ("relay/dispatch.rs", "dispatch"),
    ("relay/attempts.rs", "attempt"),
    ("domain/routing/plan.rs", "plan"),
    ("relay/health/permit.rs", "permit"),
    ("upstream/mod.rs", "send"),
    ("upstream/providers/network.rs", "connect"),
    ("upstream/answer.rs", "commit"),
    ("relay/deliver.rs", "deliver"),
    ("http/egress.rs", "answer"),
    ("relay/guard.rs", "settle"),
]
SPINE_FILES, SPINE_LINES = 17, 3_350
FUNCTION_LINES = 70
# Equal lines in a row, by which two places count as a duplicate.
EQUAL_LINES = 8
LONGEST = 10


# --- reading Rust -----------------------------------------------------------------------------

SKIPPED = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)"""
    r"""|(?<!\w)[bc]?r(?P<hashes>\#*)".*?"(?P=hashes)"""
    r"""|"(?:\\.|[^"\\])*\""""
    r"""|'(?:\\[^\n]+?|[^\\'\n])'""",
    re.DOTALL | re.VERBOSE,
)
WORD = re.compile(r"[A-Za-z_]\w*|::|\S")
NAME = re.compile(r"[A-Za-z_]\w*$")


class Source:
    """One file: its code without comments and literals' contents, and which of its lines are test code."""

    def __init__(self, file, text):
        self.file = file

        def skip(literal):
            def replace(found):
                comment = found["comment"] is not None
                return ("" if comment else literal or found[0]) + "\n" * found[0].count("\n") * (comment or bool(literal))

            return replace

        self.comments = [found[0] for found in SKIPPED.finditer(text) if found["comment"] is not None]
        self.lines = clean_lines(SKIPPED.sub(skip('""'), text))
        # A literal's text is part of what makes two places equal.
        self.written = clean_lines(SKIPPED.sub(skip(None), text))
        self.words = [(word, n) for n, line in enumerate(self.lines) for word in WORD.findall(line)]
        self.test_modules = set()
        self.test_lines = self._test_lines()
        self.is_test = False

    @property
    def module(self):
        """`relay/guard.rs` is `("relay", "guard")`, `relay/mod.rs` is `("relay",)`."""
        parts = self.file.removesuffix(".rs").split("/")
        return tuple(parts[:-1] if parts[-1] in ("mod", "lib", "main") else parts)

    def _test_lines(self):
        mark = ["#", "[", "cfg", "(", "test", ")", "]"]
        lines, at = set(), 0
        texts = [word for word, _ in self.words]
        while at < len(texts):
            if texts[at : at + len(mark)] != mark:
                at += 1
                continue
            end = end_of_item(texts, at + len(mark))
            item = texts[at + len(mark) : end]
            if "mod" in item and item[-1] == ";":
                self.test_modules.add(item[item.index("mod") + 1])
            lines.update(range(self.words[at][1], self.words[end - 1][1] + 1))
            at = end
        return lines

    def code(self):
        """Numbers of the lines that are neither blank, comment nor test."""
        if self.is_test:
            return []
        return [n for n, line in enumerate(self.lines) if line and n not in self.test_lines]

    def defines(self, name):
        return re.search(rf"\b(struct|enum|union|trait|type|fn|const|static|mod)\s+{name}\b", "\n".join(self.lines))


def clean_lines(text):
    return [" ".join(line.split()) for line in text.split("\n")]


def end_of_item(words, start):
    """One past the `;` or the closing brace of the item that begins at `start`."""
    depth = 0
    for at in range(start, len(words)):
        if words[at] in "{([":
            depth += 1
        elif words[at] in "})]":
            depth -= 1
            if words[at] == "}" and depth <= 0:
                return at + 1
        elif words[at] == ";" and depth == 0:
            return at + 1
    return len(words)


def read_sources(folder):
    files = sorted(folder.rglob("*.rs"))
    sources = {}
    for path in files:
        file = path.relative_to(folder).as_posix()
        sources[file] = Source(file, path.read_text())
    by_module = {source.module: source for source in sources.values()}
    for source in sources.values():
        for name in source.test_modules:
            for below in (s for m, s in by_module.items() if m[: len(source.module) + 1] == (*source.module, name)):
                below.is_test = True
    return sources


# --- functions, modules, duplicates -----------------------------------------------------------


def long_functions(source, most):
    """`(name, line, lines of code)` of every function, tests' too, that is longer than `most`."""
    out = []
    texts = [word for word, _ in source.words]
    for at, text in enumerate(texts):
        if text != "fn" or at + 1 >= len(texts) or not NAME.match(texts[at + 1]):
            continue
        end = end_of_item(texts, at)
        first, last = source.words[at][1], source.words[end - 1][1]
        count = sum(1 for line in source.lines[first : last + 1] if line)
        if count > most:
            out.append((texts[at + 1], first + 1, count))
    return out


def duplicates(sources, least):
    """Pairs of places with at least `least` equal lines of code in a row: `(lines, place, place)`."""
    runs = {}
    for source in sources:
        imports = import_lines(source)
        numbers = [n for n in source.code() if n not in imports]
        runs[source.file] = [(n, source.written[n]) for n in numbers]
    places = defaultdict(list)
    for file, lines in runs.items():
        for at in range(len(lines) - least + 1):
            # Closing brackets alone say nothing.
            window = tuple(text for _, text in lines[at : at + least])
            if sum(1 for text in window if re.search(r"\w", text)) * 2 >= least:
                places[window].append((file, at))
    seen, out = set(), []
    for found in places.values():
        for i, one in enumerate(found):
            for other in found[i + 1 :]:
                if (one, other) in seen:
                    continue
                length = 0
                (file_a, a), (file_b, b) = one, other
                while same(runs[file_a], a + length, runs[file_b], b + length):
                    seen.add(((file_a, a + length), (file_b, b + length)))
                    length += 1
                if not overlaps(one, other, length):
                    out.append((length, f"{file_a}:{runs[file_a][a][0] + 1}", f"{file_b}:{runs[file_b][b][0] + 1}"))
    return sorted(out, key=lambda pair: (-pair[0], pair[1:]))


def same(lines, a, others, b):
    return a < len(lines) and b < len(others) and lines[a][1] == others[b][1]


def overlaps(one, other, length):
    return one[0] == other[0] and abs(one[1] - other[1]) < length


def import_lines(source):
    """Lines of `use` items: every file of a module opens with much the same."""
    texts = [word for word, _ in source.words]
    out = set()
    for at, text in enumerate(texts):
        if text == "use" and (at == 0 or texts[at - 1] in (";", "}", "{", "]", "pub", ")")):
            end = texts.index(";", at) if ";" in texts[at:] else at
            out.update(range(source.words[at][1], source.words[end][1] + 1))
    return out


# --- files that import each other -------------------------------------------------------------


class Imports:
    """Which file each path of the code leads to, `pub use` followed."""

    def __init__(self, sources):
        self.sources = list(sources)
        self.by_module = {source.module: source for source in self.sources}
        self.by_file = {source.file: source for source in self.sources}
        self.uses = {source.file: list(use_leaves(source)) for source in self.sources}

    def edges(self):
        """Of each file, the files of its own module it uses outside test code and `pub use`."""
        out = defaultdict(set)
        for source in self.sources:
            if source.is_test or source.file in ("lib.rs", "main.rs"):
                continue
            for line, path, public in [*named_paths(source), *self.leaves(source)]:
                if public or line in source.test_lines:
                    continue
                target = self.file_of(source, path)
                if target and target != source.file and target.split("/")[0] == source.file.split("/")[0]:
                    out[source.file].add(target)
        return out

    def leaves(self, source):
        return [(line, path, public) for line, path, _, public in self.uses[source.file]]

    def file_of(self, source, path, depth=0):
        """The file that defines what `path` names in `source`; `None` for other crates."""
        whole = self.absolute(source, path)
        if whole is None or depth > 8:
            return None
        for length in range(len(whole), -1, -1):
            inside = self.by_module.get(tuple(whole[:length]))
            if inside is not None and (length or inside.file == "lib.rs"):
                break
        else:
            return None
        rest = whole[length:]
        if not rest or rest[0] == "*" or inside.defines(rest[0]):
            return inside.file
        for _, target, name, public in self.uses[inside.file]:
            if public and name == rest[0] and target != path:
                return self.file_of(inside, [*target, *rest[1:]], depth + 1)
        for _, target, name, public in self.uses[inside.file]:
            if public and name == "*":
                found = self.file_of(inside, [*target[:-1], *rest], depth + 1)
                if found and self.by_file[found].defines(rest[0]):
                    return found
        return inside.file

    def absolute(self, source, path):
        here = list(source.module)
        first = path[0]
        if first == "crate":
            return path[1:]
        if first in ("self", "super"):
            rest = list(path)
            while rest and rest[0] in ("self", "super"):
                here = here[:-1] if rest.pop(0) == "super" else here
            return here + rest
        if (*source.module, first) in self.by_module:
            return here + list(path)
        return None


def named_paths(source):
    """Paths of two and more words in the code, `use` items aside: `(line, words, False)`."""
    imports = import_lines(source)
    words, at = source.words, 0
    while at < len(words):
        start = at
        if not NAME.match(words[at][0]) or (at and words[at - 1][0] in ("::", ".")):
            at += 1
            continue
        path = [words[at][0]]
        at += 1
        while at + 1 < len(words) and words[at][0] == "::" and NAME.match(words[at + 1][0]):
            path.append(words[at + 1][0])
            at += 2
        if len(path) > 1 and words[start][1] not in imports:
            yield words[start][1], path, False


def use_leaves(source):
    """Every leaf of every `use` item: `(line, path, name in this file, whether it is exported)`."""
    texts = [word for word, _ in source.words]
    for at, text in enumerate(texts):
        if text != "use" or (at and texts[at - 1] not in (";", "}", "{", "]", "pub", ")")):
            continue
        public = at > 0 and texts[at - 1] in ("pub", ")")
        leaves = []
        read_tree(texts, at + 1, [], leaves)
        for path, name in leaves:
            yield source.words[at][1], path, name, public


def read_tree(texts, at, stem, leaves):
    """Reads one branch of a `use` tree at `at`; returns the place after it."""
    path = list(stem)
    while at < len(texts):
        if texts[at] == "{":
            at += 1
            while texts[at] != "}":
                at = at + 1 if texts[at] == "," else read_tree(texts, at, path, leaves)
            return at + 1
        path.append(texts[at])
        at += 1
        if at >= len(texts) or texts[at] != "::":
            break
        at += 1
    name = path[-1]
    if name == "self":
        path = path[:-1]
        name = path[-1] if path else "self"
    if at < len(texts) and texts[at] == "as":
        name = texts[at + 1]
        at += 2
    leaves.append((path, name))
    return at


def without_parents(edges):
    """The edges but those from a part of a module up to the `mod.rs` above it: what a module shares among
    its parts is there, and it uses its parts. Also how many such pairs use each other."""
    kept, pairs = defaultdict(set), 0
    for file, used in edges.items():
        for target in used:
            above = target.endswith("/mod.rs") and file.startswith(target.removesuffix("mod.rs"))
            if not above:
                kept[file].add(target)
            pairs += above and file in edges.get(target, ())
    return kept, pairs


def circles(edges):
    """Pairs of files that use each other, and longer rings beside those pairs."""
    pairs = sorted({tuple(sorted((a, b))) for a, used in edges.items() for b in used if a in edges.get(b, ())})
    without = {a: {b for b in used if (min(a, b), max(a, b)) not in pairs} for a, used in edges.items()}
    rings = [ring for ring in components(without) if len(ring) > 1]
    return [*pairs, *map(tuple, rings)]


def components(edges):
    """Files that reach each other, by Tarjan's algorithm without recursion of its own depth."""
    index, low, stack, out = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(edges.get(node, ())):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            ring = []
            while not ring or ring[-1] != node:
                ring.append(stack.pop())
            out.append(sorted(ring))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return out


def reason_of(circle, sources):
    """The sentence of `// circle: OTHER: sentence` in one file of the circle that names another one of it."""
    for file in circle:
        for comment in sources[file].comments:
            found = re.match(r"//\s*circle:\s*([\w/]+\.rs):?\s+(\S.*)", comment)
            if found and any(other != file and f"/{other}".endswith(f"/{found[1]}") for other in circle):
                return found[2]
    return None


# --- the report -------------------------------------------------------------------------------


def main():
    sources = read_sources(PROJECT / "src")
    lines = {file: len(source.code()) for file, source in sources.items()}
    broken = []

    print("A chat request passes")
    for file, why in SPINE:
        if file not in lines:
            broken.append(f"SPINE names {file}, which does not exist")
        print(f"  {lines.get(file, 0):5}  {file:32} {why}")
    total = sum(lines.get(file, 0) for file, _ in SPINE)
    print(f"  {total:5}  lines of code in {len(SPINE)} files (at most {SPINE_LINES} in {SPINE_FILES})")
    drawn = re.findall(r"^\|.*\| `([^`]+\.rs)` \|$", (PROJECT / "ARCHITECTURE.md").read_text(), re.M)
    if drawn != [file for file, _ in SPINE]:
        broken.append("ARCHITECTURE.md draws another path than SPINE: " + ", ".join(drawn))
    if len(SPINE) > SPINE_FILES:
        broken.append(f"a chat request passes {len(SPINE)} files, {SPINE_FILES} are the most")
    if total > SPINE_LINES:
        broken.append(f"a chat request passes {total} lines, {SPINE_LINES} are the most")

    print(f"\nFunctions over {FUNCTION_LINES} lines of code")
    everything = [*sources.values(), *(s for folder in ("tests", "benches") for s in rust_of(folder))]
    for source in everything:
        for name, line, count in long_functions(source, FUNCTION_LINES):
            print(f"  {count:5}  {name} ({source.file}:{line})")
            broken.append(f"{name} in {source.file} has {count} lines")

    print("\nLines of code by module")
    modules = defaultdict(list)
    for file, count in lines.items():
        modules[file.split("/")[0].removesuffix(".rs")].append(count)
    for module, counts in sorted(modules.items(), key=lambda item: -sum(item[1])):
        files = sum(1 for count in counts if count)
        print(f"  {sum(counts):5}  {module:12} {files} {'file' if files == 1 else 'files'}")
    print(f"  {sum(lines.values()):5}  in all")

    print("\nLongest files")
    for file, count in sorted(lines.items(), key=lambda item: -item[1])[:LONGEST]:
        print(f"  {count:5}  {file}")

    print(f"\nDuplicates: {EQUAL_LINES} and more equal lines of code in a row")
    for count, one, other in duplicates(sources.values(), EQUAL_LINES):
        print(f"  {count:5}  {one} and {other}")

    print("\nFiles of one module that use each other")
    edges, with_parents = without_parents(Imports(sources.values()).edges())
    for circle in circles(edges):
        reason = reason_of(circle, sources)
        print(f"  {' <-> '.join(circle)}: {reason or 'UNEXPLAINED'}")
        if not reason:
            broken.append(f"no `// circle: FILE: why` explains {' <-> '.join(circle)}")
    print(f"  besides {with_parents} pairs of a mod.rs and a part of it")

    if broken:
        print("\nBroken:\n" + "\n".join(f"  {line}" for line in broken))
    return 1 if broken else 0


def rust_of(folder):
    for path in sorted((PROJECT / folder).rglob("*.rs")):
        if not {"node_modules", ".venv", "target"} & set(path.parts):
            yield Source(path.relative_to(PROJECT).as_posix(), path.read_text())


# --- the readers, tried on snippets -------------------------------------------------------------


def self_test():
    sample = Source("a/b.rs", '//! x\n\nfn f() {\n  g("{"); // {\n}\n#[cfg(test)]\nmod tests {\n  fn t() {}\n}\n')
    assert [n + 1 for n in sample.code()] == [3, 4, 5], sample.code()
    assert long_functions(sample, 2) == [("f", 3, 3)], long_functions(sample, 2)
    # The `;` of an array ends nothing.
    array = Source("a.rs", "fn f(x: [u8; 4]) -> [u8; 2] {\n  g();\n  h();\n}\n")
    assert long_functions(array, 3) == [("f", 1, 4)], long_functions(array, 3)
    # A lifetime is code, a character is not.
    assert Source("a.rs", "fn f<'a>(x: &'a str) -> char { '\"' }").lines == ["fn f<'a>(x: &'a str) -> char { \"\" }"]

    body = "".join(f"    call_{n}();\n" for n in range(9))
    twice = [Source(name, f"fn {name[0]}() {{\n{body}}}\n") for name in ("a.rs", "b.rs")]
    assert duplicates(twice, 8) == [(10, "a.rs:2", "b.rs:2")], duplicates(twice, 8)
    assert duplicates(twice, 11) == []

    def found(files):
        sources = {file: Source(file, text) for file, text in files.items()}
        edges, _ = without_parents(Imports(sources.values()).edges())
        return [(circle, reason_of(circle, sources)) for circle in circles(edges)]

    one, other = "use super::b::B;\nstruct A;\n", "use super::a::A;\nstruct B;\n"
    pair = ("r/a.rs", "r/b.rs")
    assert found({"r/mod.rs": "mod a;\nmod b;", "r/a.rs": one, "r/b.rs": other}) == [(pair, None)]
    explained = {"r/mod.rs": "", "r/a.rs": "// circle: b.rs: it counts.\n" + one, "r/b.rs": other}
    assert found(explained) == [(pair, "it counts.")]
    assert found({"r/mod.rs": "", "r/a.rs": one, "r/b.rs": "struct B;\n#[cfg(test)]\nmod tests { use super::super::a::A; }"}) == []
    # An export alone needs nothing of what it exports; what goes through it reaches the file behind it.
    exported = {"r/mod.rs": "mod a;\nmod b;\npub use b::B;", "r/a.rs": "use super::B;\nstruct A;", "r/b.rs": other}
    assert found(exported) == [(pair, None)]
    assert found({"r/mod.rs": "mod a;\npub use a::A;\nstruct M;", "r/a.rs": "use super::M;\nstruct A;"}) == []
    ring = {f"r/{a}.rs": f"use super::{b}::X;\nstruct X;" for a, b in (("a", "b"), ("b", "c"), ("c", "a"))}
    assert found({"r/mod.rs": "", **ring}) == [(("r/a.rs", "r/b.rs", "r/c.rs"), None)]
    # What a module shares among its parts is in its mod.rs.
    assert found({"r/mod.rs": "mod a;\nuse a::A;\nstruct M;", "r/a.rs": "use super::M;\nstruct A;"}) == []
    # Which top-level modules may use each other is checked by tests/architecture.rs.
    assert found({"r/a.rs": "use crate::s::X;\nstruct X;", "s.rs": "use crate::r::a::X;\nstruct X;"}) == []
    print("the readers find what they should")
    return 0


if __name__ == "__main__":
    sys.exit(self_test() if "--self-test" in sys.argv else main())
