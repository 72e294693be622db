"""Which names are those of secrets."""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache
from itertools import pairwise

WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_NAME_LIMIT = 1000  # characters of a name that are looked at: no name of a secret is longer


class Level(IntEnum):
    """What of a value is secret because of its name."""

    NOTHING = 0
    IF_RANDOM = 1  # a text of random letters and digits
    TEXT = 2  # any text
    ALL = 3  # numbers too


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A name with one of these words is a secret's.
_SECRETS = _words(
    "password passwords passwd pwd passphrase passphrases passcode secret secrets credential credentials cred creds "
    "pswd psw passwrd connstr oauth authkey "
    "authorization webhook webhooks jwt bearer cookie cookies dsn psk htpasswd keytab"
)
# The same, written as two.
_PAIRS = frozenset(
    (first, second)
    for second, firsts in {
        "word": "pass",
        "phrase": "pass",
        "code": "pass access backup recovery security",
        "string": "connection conn",
        "str": "conn",
        "header": "auth",
        "json": "account",
        "pem": "private",
        "hook": "web slack teams discord incoming",
    }.items()
    for first in _words(firsts)
)
# The same, written as one word.
_COMPOUND = re.compile(
    r".*(?:password|passwd|passphrase|passcode|secret|connectionstring)s?"
    r"|(?:api|access|auth|private|secret|ssh|encryption|account|shared)keys?"
    r"|(?:api|auth|access|bot|bearer|csrf|github|gitlab|hf|hub|id|login|oauth|refresh|session|slack|user|xsrf)tokens?"
    r"|(?:admin|db|ftp|http|imap|ldap|login|mail|my|mysql|pg|proxy|redis|root|smtp|sql|ssh|user|vpn|wifi)(?:pass|pwd?)"
    r"|sessionid|x?api(?:key|token|secret)s?"
)
# In these names the last word says that the value only describes a secret: its length, its kind, where it is kept.
_DESCRIBES = _words(
    "len length dim dims size sizes width count counts num number total type types kind policy name names file files "
    "filename path paths folder dir directory env environ variable var method mode modes ratio rate share fraction "
    "timeout interval seconds minutes hours days limit min max algorithm alg scheme provider backend stride layer "
    "layers template cutter budget required enabled disabled hint prompt column field index position threshold version "
    "format strength manager store ttl expiry expires expiration age entropy bits bytes rotation step steps batch "
    "epoch epochs dataset model loss weight weights sharing detection detector classifier class classes label labels "
    "embedding embeddings port host hosts retry retries event events region leeway bucket table prefix suffix pattern "
    "regex rule rules fields validator validation check checks example reset date time timestamp location source status"
)
# Names that begin so are switches and numbers.
_SWITCHES = _words(
    "use no not has have is are was with without enable enabled disable skip allow require needs n num max min"
)
# `<one of these>_key` is a secret's name.
_KEYS = _words(
    "api access secret private account encryption decryption signing ssh auth subscription storage master hmac license "
    "licence shared deploy service consumer client admin bot app application session webhook gpg pgp rsa ssl tls vault "
    "project write ingest integration product activation user token host hub hf huggingface wandb kaggle openai "
    "anthropic claude cohere comet neptune clearml github gitlab slack stripe sendgrid mailgun twilio azure gcp google "
    "gemini aws s3 databricks replicate mistral groq deepseek pinecone weaviate langsmith langchain datadog sentry "
    "recovery backup telegram discord nvidia ngc together fireworks perplexity xai openrouter modal runpod lambda "
    "tavily serper mapbox algolia"
)
# `<one of these>_pass`, `_pw` and `_pat` are secrets' names.
_OWNERS = _words(
    "db database user root admin login mail email smtp imap ftp ssh http https proxy redis mysql postgres postgresql "
    "pg mongo mongodb sql ldap bind wifi wlan my service svc account acct server host client vpn registry docker "
    "dockerhub snowflake oracle rabbitmq amqp mqtt kafka elastic es github gitlab azure ado bitbucket jira hub hf git "
    "keystore truststore vault pem jdbc personal access mlflow tracking ui web app guest sudo store"
)
# In these names, 'token' means a text token, not a credential.
_OF_TEXT = _words(
    "cls class pad eos bos unk sep mask start end stop begin special image video audio vision visual text word sub "
    "next last first prompt prefix suffix space blank dist distill reg register dummy decoder encoder query extra "
    "additional new learnable input output use per max min num n no with has add drop separator state summary "
    "latent patch eot eom fim memory gist sink label time step reward action bin target source oov"
)
_TAIL = _words("value string str text raw plain b64 base64 default old new backup")  # words after the one that counts
_OF_CHANNEL = re.compile(r"\bon_alert\b.*\b(?:address(?:es)?|_args_)$")  # arguments of a `Notify` in a flattened config


@lru_cache(maxsize=8192)
def level_of(name: str) -> Level:
    """Return how secret the value of a name is; a name of several parts (``a.b``, ``a/b``) as its most secret part."""
    name = name[-_NAME_LIMIT:]
    if _OF_CHANNEL.search(name):
        return Level.ALL
    return max(_level(part) for part in re.split(r"[./]", name))


def _level(part: str) -> Level:
    words = [word.lower() for word in WORDS.findall(part)]
    while len(words) > 1 and (words[-1].isdigit() or words[-1] in _TAIL) and tuple(words[-2:]) not in _PAIRS:
        words.pop()
    if not words or (len(words) > 1 and (words[-1] in _DESCRIBES or words[0] in _SWITCHES)):
        return Level.NOTHING
    if words[-1] == "id" and len(words) > 1:
        return Level.ALL if ("access", "key") in pairwise(words) else _token(words[:-1])
    if (
        words[-1] == "auth"
        or not _PAIRS.isdisjoint(pairwise(words))
        or any(word in _SECRETS or _COMPOUND.fullmatch(word) for word in words)
    ):
        return Level.ALL
    if any(first in _KEYS and second in ("key", "keys") for first, second in pairwise(words)):
        return Level.ALL
    return max(_token(words), _short(words))


def _token(words: list[str]) -> Level:
    if words[-1] != "token" or not _OF_TEXT.isdisjoint(words):
        return Level.NOTHING
    return Level.TEXT


def _short(words: list[str]) -> Level:
    """Short words for a secret, which mean other things as well."""
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if last == "pw" or (last in ("pass", "pat", "pin", "otp") and before in _OWNERS):
        return Level.TEXT
    return Level.IF_RANDOM if last in ("pass", "key", "code", "pat", "auth", "otp", "sid", "session") else Level.NOTHING
