"""Probes that the rules were fitted to.

One a line. ``N`` is the name of a value (an innocent one with its value), ``T`` a text, ``C`` a command line. ``{F}``
is a fake secret, ``{24}`` a fake of 24 letters and digits, ``{32h}`` of 32 hexadecimal digits, ``{16A}`` of capitals
and digits, ``{6d}`` of 6 digits; ``\n`` is a line break. No text here has the form of a real key.
"""

from __future__ import annotations

SECRETS = r"""
N db_pass
N creds
N apitoken
N passcode
N github_pat
N kaggle_key
N hf_hub_key
N openai_key
N dbPass
N user_pw
N pw
N pass
N root_pass
N wifi_psk
N api_creds
N aws_creds
N aws_secret_access_key
N aws_session_token
N AWS_ACCESS_KEY_ID
N accesskey
N encryption_key
N ssh_private_key
N storage_key
N bot_token
N authtoken
N oauth_token
N smtp_password
N sentry_dsn
N slack_webhook
N webhook_url
N master_password
N private_token
N deploy_key
N cookie
N azure_client_secret
N databricks_token
T password: {F}
T the password: {F}, the user: me
T passwd={F}
T pwd: '{F}'
T api_key: {F}
T apikey="{F}"
T secret = '{F}'
T {"token": "{F}"}
T {"a": [{"db_pass": "{F}"}]}
T {'password': '{F}'}
T {"password": "two {F} words"}
T {\"password\": \"{F}\"}
T X-Api-Key: {F}
T api-key: {F}
T Authorization: Bearer {F}
T Authorization: Basic {F}
T Authorization: {F}
T Authorization: Digest {F}
T Set-Cookie: sid={F}; Path=/
T -----BEGIN PRIVATE KEY-----\n{F}\n-----END PRIVATE KEY-----
T -----BEGIN EC PRIVATE KEY----- {F} -----END EC PRIVATE KEY-----
T Server=db;Uid=me;Pwd={F};
T sk-{48}
T sk-proj-{60}
T sk_test_{24}
T rk_live_{24}
T whsec_{32}
T ghp_{36}
T gho_{36}
T github_pat_{22}_{59}
T glpat-{20}
T hf_{34}
T AKIA{16A}
T xoxb-{12d}-{12d}-{24}
T SK{32h}
T {10d}:AA{33}
T key-{32h}
T {32h}-us12
T dckr_pat_{27}
T lin_api_{40}
T tskey-auth-{20}
T https://me:{F}@example.org/x
T r8_{37}
T pplx-{48}
T dapi{32h}
C train.py --api-key {F}
C train.py --token={F}
C train.py --password '{F}'
C train.py -p 3 --secret {F} --n 5
C train.py --wandb-key {F}
C train.py logger.password={F}
C train.py --header "Authorization: Bearer {F}"
C train.py --creds {F} {F}
"""

INNOCENTS = r"""
N aws_region=eu-west-1
N password_length=12
N jwt_dim=64
N webhook_count=3
N tokenizer=bert
N max_tokens=512
N key_dim=64
N author=me
N pass_rate=0.5
N secretary=Ann
N use_cls_token=yes
N pad_token=[PAD]
N n_passes=3
N passes=3
N compass=north
N keyboard=qwerty
N num_keys=8
N sort_key=name
N primary_key=id
N query_key_value=fused
N secret_size=16
N credentials_count=2
N cookie_size=4
N bearer_count=2
N auth_type=none
N token_length=12
N token_embedding=rope
N password_min_length=8
N api_key_count=2
N access_key_rotation_days=30
N n_secrets=2
N pass_through=yes
N pat=3
N pathology=none
N pattern=a*b
N key=3
N keys=a
N foreign_key=user
N cache_key=abc
N partition_key=day
N monitor_key=val_loss
N key_frames=10
N hash_key_bits=64
N aws_batch_size=8
T password length: 12
T tokens: 512
T token: 5
T key: value
T author=me
T lr=0.1 key_dim=64 max_tokens=5
T {"key_dim": 64, "tokenizer": "bert"}
T Traceback: KeyError: 'password'
T passwords are hidden
T monkey: business
T http://127.0.0.1:5000/#/experiments
T keys: [1, 2]
T sort_key: name
T epoch 3: pass 2
T learning_rate: 3e-4
T e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
T task-1234567890abcdefghij
T desk-lamp-and-chair-and-table
T api-key is missing
T token=3
C train.py --key value --lr 0.1
C train.py --max-tokens 512 --seed 3
C train.py --no-password --lr 0.1
C train.py --n-passes 3
"""
