"""Writes TOML as a person would: bodies as they stand, lists of choices one a line."""

import json


def toml(value, name: str = "") -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return literal(value) if name == "body" or '"' in value else quoted(value)
    if isinstance(value, list):
        if not value or not isinstance(value[0], dict):
            return "[" + ", ".join(toml(each) for each in value) + "]"
        return "[\n" + "".join(f"  {toml(each)},\n" for each in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{bare(key)} = {flat(each)}" for key, each in value.items()) + " }" if value else "{}"
    raise ValueError(f"TOML has nothing for {value!r}")


def flat(value) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(flat(each) for each in value) + "]"
    return toml(value)


def bare(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else quoted(key)


def quoted(text: str) -> str:
    """A basic string; control characters are escaped, other characters stay readable."""
    out = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    return out


def literal(text: str) -> str:
    """A string as it stands, where TOML has one for it."""
    plain = all(char in "\n\t" or " " <= char != "\x7f" for char in text) and "'''" not in text
    if plain and "\n" in text:
        return f"'''\n{text}'''"
    if plain and "'" not in text:
        return f"'{text}'"
    return quoted(text)
