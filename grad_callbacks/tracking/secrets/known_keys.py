"""Keys that are recognised by their form, whatever their name."""

from __future__ import annotations

import re

MASK = "***"

# The prefix of a service's keys, and what follows it. Only the forms whose prefix is in a text are looked for.
_FORMS = {
    "sk-": r"(?=[\w-]{0,60}\d)[\w-]{20,}",  # OpenAI, Anthropic, OpenRouter and others
    "sk_live_": r"\w{16,}",  # Stripe
    "sk_test_": r"\w{16,}",
    "rk_live_": r"\w{16,}",
    "rk_test_": r"\w{16,}",
    "whsec_": r"[\w+/=]{24,}",
    "gh": r"[pousr]_\w{30,}",  # GitHub
    "github_pat_": r"\w{30,}",
    "gl": r"(?:pat|rt|dt|ptt|ft|oas|imt|agent|cbt|soat|ffct)-[\w-]{20,}",  # GitLab
    "hf_": r"[A-Za-z0-9]{30,}",  # Hugging Face
    "api_org_": r"[A-Za-z0-9]{30,}",
    "AKIA": r"[A-Z0-9]{16}",  # AWS
    "ASIA": r"[A-Z0-9]{16}",
    "AIza": r"[\w-]{35}",  # Google
    "ya29.": r"[\w-]{20,}",
    "GOCSPX-": r"[\w-]{20,}",
    "xox": r"[a-z](?:\.[a-z]+)?-[\w-]{10,}",  # Slack
    "xapp-": r"[\w-]{10,}",
    "SG.": r"[\w-]{16,32}\.[\w-]{16,64}",  # SendGrid
    "SK": r"[0-9a-f]{32}",  # Twilio
    "key-": r"[0-9a-f]{32}",  # Mailgun
    "npm_": r"[A-Za-z0-9]{30,}",
    "pypi-": r"AgEIcHlwaS5vcmc[\w-]{20,}",
    "rubygems_": r"[0-9a-f]{40,}",
    "dckr_": r"(?:pat|oat)_[\w-]{20,}",  # Docker Hub
    "do": r"[opr]_v1_[0-9a-f]{40,}",  # DigitalOcean
    "shp": r"(?:at|ss|ca|pa)_[0-9a-fA-F]{32}",  # Shopify
    "dapi": r"[0-9a-f]{32}(?:-\d)?",  # Databricks
    "eyJ": r"[\w-]{8,}\.[\w-]{8,}\.[\w-]*",  # JSON web tokens
    "gsk_": r"[A-Za-z0-9]{30,}",  # Groq
    "r8_": r"[A-Za-z0-9]{30,}",  # Replicate
    "pplx-": r"[A-Za-z0-9]{30,}",  # Perplexity
    "xai-": r"[A-Za-z0-9]{30,}",
    "csk-": r"[a-z0-9]{30,}",  # Cerebras
    "nvapi-": r"[\w-]{30,}",  # NVIDIA
    "tgp_v1_": r"[\w-]{30,}",  # Together
    "fw_": r"[A-Za-z0-9]{20,}",  # Fireworks
    "pcsk_": r"\w{30,}",  # Pinecone
    "jina_": r"[A-Za-z0-9]{30,}",
    "tvly-": r"[\w-]{20,}",  # Tavily
    "lsv2_": r"(?:pt|sk)_[\w]{20,}",  # LangSmith
    "KGAT_": r"[0-9a-fA-F]{30,}",  # Kaggle
    "wandb_v1_": r"[\w-]{20,}",
    "lin_api_": r"[A-Za-z0-9]{30,}",  # Linear
    "tskey-": r"[\w-]{16,}",  # Tailscale
    "hv": r"[sbr]\.[\w-]{20,}",  # Vault
    "dp.": r"(?:pt|st|ct|sa|scim|audit)\.[\w.-]{30,}",  # Doppler
    "ntn_": r"[A-Za-z0-9]{30,}",  # Notion
    "figd_": r"[\w-]{30,}",  # Figma
    "sbp_": r"[0-9a-f]{40}",  # Supabase
    "sb_secret_": r"[\w-]{20,}",
    "PMAK-": r"[0-9a-f]{24}-[0-9a-f]{30,}",  # Postman
    "NRAK-": r"[A-Z0-9]{24,}",  # New Relic
    "glc_": r"[\w+/=]{30,}",  # Grafana
    "glsa_": r"\w{30,}",
    "sntry": r"[su]_[\w+/=]{40,}",  # Sentry
    "xkeysib-": r"[0-9a-f]{60,}\S*",  # Brevo
    "sq0": r"(?:atp|csp)-[\w-]{20,}",  # Square
    "EAA": r"[A-Za-z0-9]{80,}",  # Meta
    "ATATT3": r"[\w=-]{50,}",  # Atlassian
    "pscale_": r"(?:tkn|pw|oauth)_[\w.=-]{30,}",  # PlanetScale
    "AGE-SECRET-KEY-1": r"[0-9A-Z]{50,}",
    "ops_": r"eyJ[\w+/=-]{60,}",  # 1Password
    "AKCp": r"[A-Za-z0-9]{20,}",  # Artifactory
    "rnd_": r"[A-Za-z0-9]{30,}",  # Render
}
_BEFORE = r"(?<![A-Za-z0-9_])"
_PREFIXED = {prefix: re.compile(f"{_BEFORE}{re.escape(prefix)}{rest}") for prefix, rest in _FORMS.items()}
# Forms without a prefix, by a text that is part of them.
_PARTS = {
    ":AA": re.compile(r"(?<!\d)\d{8,11}:AA[\w-]{30,40}"),  # Telegram
    "-us": re.compile(r"(?<![0-9a-zA-Z])[0-9a-f]{32}-us\d{1,2}\b"),  # Mailchimp
    ".atlasv1.": re.compile(r"(?<!\w)\w{14}\.atlasv1\.[\w-]{40,}"),  # Terraform
    "==": re.compile(r"(?<![\w+/])[A-Za-z0-9+/]{86}==(?![\w=])"),  # Azure storage
    "PRIVATE KEY": re.compile(
        r"(-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----).*?(?:-----END [A-Z0-9 ]{0,30}-----|\Z)", re.DOTALL
    ),
}
_LOGIN = re.compile(r"\b([Bb]earer|Basic)\s+(?=\S*[\d=]|\S{20})[\w.~+/=-]{6,}")


def mask_known_keys(text: str) -> str:
    """Replace keys of a known form, private keys, and what follows ``Bearer`` and ``Basic``."""
    for prefix, form in _PREFIXED.items():
        if prefix in text:
            text = form.sub(MASK, text)
    for part, form in _PARTS.items():
        if part in text:
            text = form.sub(lambda found: f"{found.group(1)}{MASK}" if found.re.groups else MASK, text)
    return _LOGIN.sub(rf"\1 {MASK}", text)


def looks_random(text: str) -> bool:
    """True for at least 12 characters of capitals, small letters and digits without a space, as keys are made of."""
    return (
        re.fullmatch(r"[\w+/=-]{12,}", text) is not None
        and re.search(r"[A-Z]", text) is not None
        and re.search(r"[a-z]", text) is not None
        and len(re.findall(r"\d", text)) > 1
    )
