from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grad_callbacks.tracking.secrets.masking import MASK, is_secret, mask, mask_address

SECRET = "Zx8kQ2vN7pLw"

SECRET_NAMES = re.findall(
    r"\S+",
    """
api_key apiKey API_KEY api-key apikey openai_api_key OPENAI_API_KEY logger.api_key api_keys wandb_api_key
token auth_token access_token accessToken hf_token HF_TOKEN huggingface_token refresh_token token_value github_token
password db_password passwd pwd DB_PASSWORD passphrase smtpPassword secret client_secret secret_key credentials
credential authorization Authorization proxy-authorization auth private_key access_key aws_access_key_id
aws_secret_access_key AWS_SESSION_TOKEN storage_account_key webhook slack_webhook_url bearer jwt cookie
logger.credentials.user optimizer.password token2
""",
)

INNOCENT_NAMES = re.findall(
    r"\S+",
    """
use_cls_token cls_token pad_token eos_token bos_token unk_token mask_token max_tokens num_tokens tokens token_length
token_dim token_embedding tokenizer tokenizer_name tokenizer.name keyboard key keys num_keys key_dim sort_key monkey
query_key_value primary_key author authors secretary compass passes n_passes encoder.token_type special_tokens
aws_region start_token next_token image_token per_token_loss tokenise bearing lawsuit awsome author_name pin_memory lr
""",
)

plain_text = st.text("abcdefghij 0123456789._-", max_size=20)
innocent = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | plain_text,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(INNOCENT_NAMES), inner, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=12,
)
secret_text = st.text("ABCDEFGHKLMNPQRSTUVWXYZ", min_size=12, max_size=20)


def with_secret(inner: Any, key: str, secret: Any, path: list[int]) -> Any:
    """``inner`` wrapped in mappings and lists, with ``{key: secret}`` at the bottom."""
    value: Any = {key: secret, "beside": inner}
    for turn in path:
        value = [value, {"layers": value}, (1, value), {"a": {"b": value}}][turn]
    return value


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_secrets_are_known_by_their_name(name: str) -> None:
    assert is_secret(name)
    assert mask({name: SECRET}) == {name: MASK}
    assert mask({"logger": [{name: (SECRET,)}]}) == {"logger": [{name: (MASK,)}]}
    assert mask(SECRET, key=name) == MASK


@pytest.mark.parametrize("name", INNOCENT_NAMES)
@pytest.mark.parametrize("value", ["word", 8, 0.5, True, None, "bert-base"])
def test_innocents_stay(name: str, value: object) -> None:
    assert mask({name: value}) == {name: value}


@pytest.mark.parametrize(
    "config",
    [
        {"token": {"dim": 3}, "token_length": 5, "use_auth_token": True},
        {"api_key": None, "password": "", "secret": False},
        {"sep_token": "[SEP]", "token": "<mask>"},
        {"tokens": ["the", "quick"]},
        {"password": "???"},
    ],
)
def test_flags_sizes_and_empty_values_are_no_secrets(config: dict[str, Any]) -> None:
    assert mask(config) == config


@given(innocent)
def test_what_has_no_secret_comes_back_as_it_is(value: Any) -> None:
    assert mask(value) == value
    assert type(mask(value)) is type(value)


@given(innocent, st.sampled_from(SECRET_NAMES), secret_text, st.lists(st.integers(0, 3), max_size=4))
def test_no_nesting_hides_a_secret_and_masking_twice_is_masking_once(
    inner: Any, key: str, secret: str, path: list[int]
) -> None:
    masked = mask(with_secret(inner, key, secret, path))
    assert secret not in repr(masked)
    assert mask(masked) == masked
    assert masked == mask(with_secret(inner, key, "another" + secret, path)), "nor does it tell the length"


@given(st.dictionaries(st.sampled_from(["user", "x", "port"]), secret_text | st.integers(10**6, 10**9), min_size=1))
def test_all_below_a_secret_name_is_secret(values: dict[str, Any]) -> None:
    assert set(mask({"credentials": values})["credentials"].values()) == {MASK}


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("https://me:pw@host:5000/path", "https://***@host:5000/path"),
        ("https://ghp_x@github.com/a/b.git", "https://***@github.com/a/b.git"),
        ("postgresql+psycopg2://u:p@ss@db:5432/mlflow", "postgresql+psycopg2://***@db:5432/mlflow"),
        ("postgresql://u:p/w?d@db/mlflow", "postgresql://***@db/mlflow"),
        ("https://host/x?api_key=abc&n=3", "https://host/x?api_key=***&n=3"),
        ("https://host/x?max_tokens=5&token=abc#top", "https://host/x?max_tokens=5&token=***#top"),
        ("https://b.s3/x?X-Amz-Signature=abc&X-Amz-Date=1", "https://b.s3/x?X-Amz-Signature=***&X-Amz-Date=1"),
        ("https://a.blob/x?sv=1&sig=a%2Fb", "https://a.blob/x?sv=1&sig=***"),
        ("https://hooks.slack.com/services/T0/B0/XX", "https://hooks.slack.com/***"),
        ("https://discord.com/api/webhooks/1/abc", "https://discord.com/api/webhooks/***"),
        ("slack://T0/B0/XX/#general", "slack://***"),
        ("smtps://me:pw@example.org?to=you", "smtps://***@example.org?to=you"),
        ("see redis://:pw@cache/0, then http://a:b@c/", "see redis://***@cache/0, then http://***@c/"),
        ('{"uri": "http://a:b@c/d"}', '{"uri": "http://***@c/d"}'),
    ],
)
def test_addresses(address: str, masked: str) -> None:
    assert mask_address(address) == masked
    assert mask({"tracking_uri": address}) == {"tracking_uri": masked}
    assert mask_address(masked) == masked


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:////data/mlflow.db",
        "http://127.0.0.1:5000/#/experiments?workflowType=machine_learning",
        "https://host/@someone/post",
        "http://[::1]:5000/",
        "s3://bucket/key=value/part",
        "file:///data/mlartifacts",
        "https://host/x?lr=0.1&tokenizer=bert",
        "mail me@example.org",
    ],
)
def test_addresses_without_secrets_stay(address: str) -> None:
    assert mask_address(address) == address
    assert mask(address) == address


@given(secret_text, st.sampled_from(["http", "https", "postgresql", "ftp"]), st.sampled_from(["", "/x", "/x?a=1"]))
def test_no_userinfo_survives(secret: str, scheme: str, rest: str) -> None:
    for userinfo in (secret, f"user:{secret}", f"{secret}:x", f":{secret}", f"user:a/{secret}", f"user:a@{secret}"):
        assert secret not in mask_address(f"at {scheme}://{userinfo}@host{rest} now")


@pytest.mark.parametrize(
    "text",
    [
        f"python run.py logger.api_key={SECRET} lr=0.1",
        f"++guard.password='{SECRET}'",
        f"Server=db;Pwd={SECRET};Timeout=3",
        f"Authorization: Bearer {SECRET}",
        f"hf_{SECRET * 3}",
        f"found sk-proj-{SECRET * 2} in it",
    ],
)
def test_secrets_within_a_text(text: str) -> None:
    masked = mask(["--x", text])[1]
    assert SECRET not in masked
    assert mask(masked) == masked


def test_overrides_without_secrets_stay() -> None:
    overrides = ["model.depth=8", "tokenizer=bert", "max_tokens=512", "+model.use_cls_token=true", "token=3"]
    assert mask(overrides) == overrides


@given(st.text(max_size=300))
def test_any_text_can_be_masked(text: str) -> None:
    once = mask(text)
    assert mask(once) == once


def test_a_long_text_takes_no_time() -> None:
    for text in ("a" * 200_000, "a." * 100_000, "a=" * 100_000, "http://" * 30_000, "a:b@" * 50_000):
        mask(text)


NOTIFY = "grad_callbacks.notify.Notify"
PLAIN = "https://example.org/SECRET"


@pytest.mark.parametrize(
    ("config", "masked"),
    [
        ({"_target_": NOTIFY, "addresses": [PLAIN]}, {"_target_": NOTIFY, "addresses": [MASK]}),
        (
            {"class_path": NOTIFY, "init_args": {"addresses": PLAIN, "at_most_every": 5}},
            {"class_path": NOTIFY, "init_args": {"addresses": MASK, "at_most_every": 5}},
        ),
        ({"_target_": NOTIFY, "_args_": [PLAIN]}, {"_target_": NOTIFY, "_args_": [MASK]}),
        ({"_target_": NOTIFY, "_args_": [[PLAIN, "env:TO"]]}, {"_target_": NOTIFY, "_args_": [[MASK, "env:TO"]]}),
        (
            {"class_path": NOTIFY, "init_args": {"at_most_every": 5}, "dict_kwargs": {"addresses": [PLAIN]}},
            {"class_path": NOTIFY, "init_args": {"at_most_every": 5}, "dict_kwargs": {"addresses": [MASK]}},
        ),
        ({"_target_": "pow", "_args_": [2, 3]}, {"_target_": "pow", "_args_": [2, 3]}),
        ({"a.on_alert.addresses": f"['{PLAIN}']"}, {"a.on_alert.addresses": MASK}),
        ({"a/on_alert/_args_": f"['{PLAIN}']"}, {"a/on_alert/_args_": MASK}),
        ({"_target_": NOTIFY, "addresses": ["env:TO"]}, {"_target_": NOTIFY, "addresses": ["env:TO"]}),
        ({"addresses": [PLAIN], "on_alert": None}, {"addresses": [PLAIN], "on_alert": None}),
    ],
)
def test_the_addresses_of_a_channel_are_secrets(config: dict[str, Any], masked: dict[str, Any]) -> None:
    assert mask({"guard": [config]}) == {"guard": [masked]}
    assert mask(masked) == masked


@pytest.mark.parametrize(
    "address",
    [
        "https://hooks.slack.com/services/T1/B2/SECRET",
        "https://discord.com/api/webhooks/1/SECRET",
        "https://x.webhook.office.com/webhookb2/SECRET@1/IncomingWebhook/2/3",
        "https://prod-1.westus.logic.azure.com:443/workflows/1/triggers/manual/paths/invoke?sp=x&sig=SECRET",
        "https://api.telegram.org/botSECRET/sendMessage",
        "https://maker.ifttt.com/trigger/e/with/key/SECRET",
        "https://mattermost.example.com/hooks/SECRET",
        "https://open.feishu.cn/open-apis/bot/v2/hook/SECRET",
        "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=SECRET",
        "mailtos://example.org?user=me&pass=SECRET",
    ],
)
def test_webhooks_of_known_services_are_hidden(address: str) -> None:
    assert "SECRET" not in mask(address)


def test_every_service_of_apprise_is_known() -> None:
    apprise = pytest.importorskip("apprise")
    for service in apprise.Apprise().details()["schemas"]:
        for scheme in [*(service["protocols"] or []), *(service["secure_protocols"] or [])]:
            assert scheme.startswith("mailto") or "SECRET" not in mask_address(f"{scheme}://host/SECRET"), scheme
