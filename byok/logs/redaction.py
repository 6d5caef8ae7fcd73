"""What of a value may stand in a log line.

By type, not by name: numbers, short texts, ids and times are shown; of bytes, and of every object that is not
known, only what kind of thing it is. Texts come from libraries as well, so what looks like a credential,
bytes, a key or the parameters of a statement is taken out of them. An exception's text may hold anything: it
is shown where it is ours, or speaks of a connection.
"""

import math
import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from enum import Enum
from types import TracebackType
from uuid import UUID

from byok.errors import ByokError

MAX_TEXT = 2000
_MAX_READ = 8000  # what is behind that is not even looked at
_MAX_ITEMS = 50
_MAX_FRAMES = 20
_MAX_ERRORS = 8  # of a chain of causes
_HIDDEN = "***"

_TELLTALE = (
    r"(?:password|passwd|passphrase|pwd|secret|token|credential|authorization|signature|plaintext"
    r"|api_?key|access_?key)"
)
# Texts speak of these keys, so only as names of values: `BYOK_MASTER_KEYS: two entries …`.
_TELLTALE_NAME = re.compile(rf"(?i){_TELLTALE}|(?:master|data|private)_?key(?!_?ids?$)")
# Greedy to the last @ of the word: a password may hold one, and lists of servers repeat it.
_URL_CREDENTIALS = re.compile(r"(?<=://)[^\s'\"<>]*@")
_NAMED_SECRET = re.compile(
    rf"(?i)({_TELLTALE}[\w-]*['\"]?\s*[=:]\s*)"
    r"(?:(?:basic|bearer)\s+)?(?:b?'[^']*'?|b?\"[^\"]*\"?|[^\s,;&)}\]]+)"
)
# Without a sign between: the next word, unless it goes on with a sentence.
_SPOKEN_SECRET = re.compile(
    rf"(?i)\b({_TELLTALE}s?\s+(?:(?:is|was)\s+)?)"
    r"('[^']*'?|\"[^\"]*\"?|\S+?(?=[.,:;!?)}\]]{0,3}(?:\s|$)))"
)
_PASSWORD = re.compile(r"(?i)pass|pwd")
_AFTER_PASSWORD = re.compile(
    r"(?i)(?:and?|are|as|at|authentication|by|can|expired|file|for|from|given|has|incorrect|invalid|is|missing"
    r"|must|needed|no|not|of|on|or|pair|required|that|to|was|which|will|with|wrong)"
)
_ACCESS_KEY_ID = re.compile(r"(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])")
_BYTES = re.compile(r"\bb(?:'(?:[^'\\]|\\.)*(?:'|$)|\"(?:[^\"\\]|\\.)*(?:\"|$))")
_HEXADECIMAL = re.compile(r"\b[0-9a-fA-F]{64,}\b")  # 32 bytes and more
# Likewise, and AWS's secret access keys, which have 40 characters.
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{40,}={0,2}")
# SQLAlchemy's, and what PostgreSQL adds: DETAIL shows rows, CONTEXT values.
_SQL_VALUES = re.compile(r"(?is)(\[parameters:|\bDETAIL:|\bCONTEXT:|\bLINE \d+:|Failing row contains).*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

# Libraries whose errors speak of connections.
_SPEAK_OF_CONNECTIONS = frozenset({"redis", "kombu", "amqp"})

Shown = str | int | float | bool | None | list["Shown"]


def clean_text(text: str) -> str:
    """A text without what looks like a secret, on one line, at most `MAX_TEXT` long."""
    text = str.__str__(text)
    if len(text) > _MAX_READ:  # a word that was cut might not be known for what it is
        text = text[:_MAX_READ].rpartition(" ")[0]
    text = _BYTES.sub("<bytes>", text)
    text = _URL_CREDENTIALS.sub(f"{_HIDDEN}@", text)
    text = _SQL_VALUES.sub(rf"\1 {_HIDDEN}", text)
    text = _NAMED_SECRET.sub(rf"\1{_HIDDEN}", text)
    text = _SPOKEN_SECRET.sub(_hide_unless_sentence, text)
    text = _ACCESS_KEY_ID.sub(_HIDDEN, text)
    text = _HEXADECIMAL.sub(_HIDDEN, text)
    text = _BASE64.sub(_hide_if_mixed, text)
    text = _CONTROL.sub(" ", text).strip()
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def _hide_unless_sentence(found: re.Match[str]) -> str:
    """Hide what follows a telltale, but for words; after a password only those that go on with a sentence."""
    telltale, word = found.groups()
    goes_on = _AFTER_PASSWORD.fullmatch(word) if _PASSWORD.match(telltale) else word.isalpha()
    return found[0] if goes_on else f"{telltale}{_HIDDEN}"


def _hide_if_mixed(found: re.Match[str]) -> str:
    """Hide a long word of capitals and small letters with digits or signs; names and paths are not such."""
    word = found[0]
    has_all = any(one.isupper() for one in word) and any(one.islower() for one in word) and not word.isalpha()
    return _HIDDEN if has_all else word


def clean_value(value: object) -> Shown:
    """A value as it may be shown: itself, its text, or only its kind."""
    if isinstance(value, Enum):
        value = value.value
    match value:
        case None | bool():
            return value
        case float():
            return value if math.isfinite(value) else repr(value)
        case int():
            return value if value.bit_length() <= 64 else "<int>"
        case str():
            return clean_text(value)
        case datetime() | date():
            return value.isoformat()
        case UUID() | timedelta():
            return str(value)
        case BaseException():
            return describe_error(value)
    if isinstance(value, list | tuple) and type(value) in (list, tuple):  # others print as they like
        return [_clean_item(item) for item in value[:_MAX_ITEMS]]
    return f"<{type(value).__name__}>"


def _clean_item(item: object) -> Shown:
    """No deeper: what nests is no log value."""
    return f"<{type(item).__name__}>" if isinstance(item, list | tuple) else clean_value(item)


def clean_named(name: str, value: object) -> Shown:
    """A value as it may be shown under a name."""
    return _HIDDEN if _TELLTALE_NAME.search(name) else clean_value(value)


def describe_error(error: BaseException) -> str:
    """An exception's kind, and its text where that speaks of nothing secret."""
    kind = type(error).__name__
    if isinstance(error, ByokError):
        return clean_text(f"{error.code}: {error.message}")
    if type(error).__module__.partition(".")[0] in _SPEAK_OF_CONNECTIONS:
        return clean_text(f"{kind}: {error}")
    if isinstance(error, OSError) and isinstance(error.strerror, str):
        return clean_text(f"{kind}: {error.strerror}")
    state = getattr(error, "sqlstate", None) or getattr(getattr(error, "orig", None), "sqlstate", None)
    if isinstance(state, str) and re.fullmatch(r"[0-9A-Z]{5}", state):
        return f"{kind}: SQLSTATE {state}"
    return kind


def tell_exception(error: BaseException) -> list[Mapping[str, str | list[str]]]:
    """An exception and its causes, the outermost first: what each says, and where it came from."""
    told: list[Mapping[str, str | list[str]]] = []
    one: BaseException | None = error
    while one is not None and len(told) < _MAX_ERRORS:
        told.append(
            {"type": type(one).__name__, "says": describe_error(one), "frames": _frames(one.__traceback__)}
        )
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return told


def _frames(traceback: TracebackType | None) -> list[str]:
    """The innermost frames, the last one first: module, line, function, and no values."""
    frames = []
    while traceback is not None:
        frame = traceback.tb_frame
        module = frame.f_globals.get("__name__", "?")
        frames.append(f"{module}:{traceback.tb_lineno} {frame.f_code.co_name}")
        traceback = traceback.tb_next
    return frames[: -_MAX_FRAMES - 1 : -1]
