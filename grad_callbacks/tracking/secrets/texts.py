"""Mask secrets within texts: named values, headers, options of a command, addresses, and keys of a known form."""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

from grad_callbacks.tracking.secrets.addresses import mask_address
from grad_callbacks.tracking.secrets.known_keys import MASK, looks_random, mask_known_keys
from grad_callbacks.tracking.secrets.names import Level, level_of

_EMPTY = frozenset({"", "true", "false", "none", "null", "???"})
_TEXT_TOKEN = re.compile(r"[\[<{|].{0,40}[\]>}|]")  # [CLS], <pad>, <|endoftext|>
_VARIABLE = re.compile(r"env:\w+|\$\{[^{}]*\}|\$\w+|%\w+%")  # names a variable
_NUMBER = re.compile(r"[-+]?[\d_]*\.?\d*(?:[eE][-+]?\d+)?")
# `name: `, `"name": `, `["name"] = `, `name=`, `--name ` of a command, `("name", `, `<name>`.
_NAME = re.compile(
    r"(?P<name>(?<![\w%.+/-])[\w%.+/-]{1,200})(?:\\?[\"'])?\]?[ \t]{0,8}(?:=>|:=|={1,2}|:(?!//))[ \t]{0,8}"
    r"|(?<![\w-])--?(?P<option>[A-Za-z][\w.-]{0,200})[ \t]{1,8}(?![-\s])"
    r"|\((?:\"(?P<first>[\w.-]{1,200})\"|'(?P<other>[\w.-]{1,200})'),[ ]?(?=[\"'])"
    r"|<(?P<tag>[A-Za-z][\w:.-]{0,200})>(?=[^<])"
)
_LINE = re.compile(r"[^\r\n\"']*[^\r\n\"'\s\\]")
_QUOTED = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|\\\"(.*?)\\\"|\\'(.*?)\\'")
_WORD = re.compile(r"\$\{[^{}\s]*\}|[^\s&;,\"'\])}]+")
_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})
_INDENT = 40  # characters before a name in which the beginning of its line is looked for
# Every name of a secret has one of these in it: most texts have none, and are not looked through.
_TRACE = re.compile(
    r"pass|pw|psw|secret|token|key|cred|auth|cookie|jwt|bearer|hook|dsn|psk|conn|code|pat|otp|sid|session|pem|json|alert"
    r"|--?u",
    re.IGNORECASE,
)
_HEADS = frozenset({"key", "keys", "code", "phrase", "word", "string"})  # second words of a name, as in `API key`
LOGIN_OPTIONS = frozenset({"u", "user"})  # of curl and others, with `name:password`
_LOGIN = re.compile(r"[^\s:\"']+:(?!//)(?!\*\*\*)(?!\d+\b)([^\s\"']+)")
_SHORT_WORD = re.compile(r"[\"']?[A-Za-z]{0,11}[\"']?(?=[\s,;)}]|$)")
_ELEMENT = re.compile(r"[^<]+")
_BLOCK = re.compile(r"([|>][+-]?\d?)?[ \t]*\n(?=[ \t])")  # after a name in YAML: its value stands in the lines below
_INDENTED = re.compile(r"([ \t]*)[^\n]*(?:\n|\Z)")
_BRACKETS = {"{": "}", "[": "]", "(": ")"}
_BRACKET = re.compile(r"[\[\](){}]")


def mask_text(text: str, level: int = Level.NOTHING) -> str:
    """Return ``text`` without its secrets, as a whole if it is the value of a secret's name.

    Args:
        text: Any text; the time that it takes grows with its length and no faster.
        level: How secret its name is, see :class:`~grad_callbacks.tracking.secrets.names.Level`.
    """
    if is_secret_text(text, level):
        return MASK
    return mask_known_keys(_without_named(mask_address(text)))


def is_secret_text(text: str, level: int) -> bool:
    """True if a text is a secret because of its name's level."""
    plain = text.strip()
    if not level or plain == MASK or plain.lower() in _EMPTY or _VARIABLE.fullmatch(plain):
        return False
    if level == Level.IF_RANDOM:
        return looks_random(plain)
    return not (level == Level.TEXT and _TEXT_TOKEN.fullmatch(plain))


def _without_named(text: str) -> str:
    """Mask the values that a secret's name stands before."""
    kept, end, found = [], 0, _NAME.search(text) if _TRACE.search(text) else None
    while found is not None:
        place = found.end()
        value = _value_of(found, text)
        if value is not None:
            start, stop = value
            kept += [text[end:start], MASK]
            end = place = stop
        found = _NAME.search(text, place)
    return "".join(kept) + text[end:] if kept else text


def _value_of(found: re.Match[str], text: str) -> tuple[int, int] | None:
    """Where the secret value after a name begins and ends; None if there is none."""
    name = unquote_plus(next(filter(None, found.groups())))
    start = found.end()
    if found.group("option") in LOGIN_OPTIONS and (login := _LOGIN.match(text, start)):
        return login.span(1)
    level = level_of(name)
    if level <= Level.IF_RANDOM and name.lower() in _HEADS and (before := _word_before(found, text)):
        level = max(level, level_of(f"{before}_{name}"))
    if name.lower() == "token" and _SHORT_WORD.match(text, start) and ":" in found.group():
        return None  # as in `unexpected token: 'else'`
    if not level or text.startswith(MASK, start):
        return None
    if name.lower().lstrip("-") in _HEADERS and (line := _LINE.match(text, start)):
        return (start, line.end()) if is_secret_text(line.group(), level) else None
    if found.group("tag"):
        word = _ELEMENT.match(text, start)
        return (start, word.end()) if word is not None and _is_secret_word(word.group(), level) else None
    if (block := _BLOCK.match(text, start)) and (block.group(1) or level == Level.ALL) and _begins_line(found, text):
        return _lines_below(found, text, block)
    if quoted := _QUOTED.match(text, start):
        margin = 2 if text[start] == "\\" else 1
        inner = (start + margin, quoted.end() - margin)
        return inner if _is_secret_word(text[slice(*inner)], level) else None
    if text[start : start + 1] in _BRACKETS:
        stop = _closing(text, start)
        return (start, stop) if level == Level.ALL and stop - start > 2 else None
    fills_line = level == Level.ALL and found.group().endswith((" ", "\t")) and _begins_line(found, text)
    word = (_LINE if fills_line else _WORD).match(text, start)
    return (start, word.end()) if word is not None and _is_secret_word(word.group(), level) else None


def _lines_below(found: re.Match[str], text: str, block: re.Match[str]) -> tuple[int, int] | None:
    """Where the lines begin and end that stand deeper than the name's own."""
    depth = found.start() - (text.rfind("\n", max(found.start() - _INDENT, 0), found.start()) + 1)
    end = start = block.end()
    while end < len(text) and (line := _INDENTED.match(text, end)) and len(line.group(1)) > depth:
        end = line.end()
    end -= text.endswith("\n", start, end)
    masked = text[start:end].strip() == MASK
    return None if masked or end <= start else (start + len(text[start:end]) - len(text[start:end].lstrip(" \t")), end)


def _begins_line(found: re.Match[str], text: str) -> bool:
    """True if only spaces and the dash of a list stand before the name in its line, as in YAML."""
    before = text[max(found.start() - _INDENT, 0) : found.start()].rpartition("\n")
    is_whole = bool(before[1]) or found.start() <= _INDENT
    return found.group("name") is not None and is_whole and not before[2].strip(" \t-")


def _word_before(found: re.Match[str], text: str) -> str:
    """The word before a name of two words, as in `API key: `."""
    words = text[max(found.start() - _INDENT, 0) : found.start()].split(" ")
    return words[-2] if len(words) > 1 and not words[-1] and words[-2].isalpha() else ""


def _is_secret_word(word: str, level: int) -> bool:
    return not (level < Level.ALL and _NUMBER.fullmatch(word)) and is_secret_text(word, level)


def _closing(text: str, start: int) -> int:
    """Where the bracket at ``start`` is closed; the end of the text if it is not."""
    open_ones = 0
    for bracket in _BRACKET.finditer(text, start):
        open_ones += 1 if bracket.group() in _BRACKETS else -1
        if not open_ones:
            return bracket.end()
    return len(text)
