"""Probes that were written before the rules, which were never fitted to them (see ``tuned.py`` for the notation)."""

from __future__ import annotations

SECRETS = r"""
N mysql_pwd
N redis_pass
N ldap_bind_pw
N loginpass
N userPassword
N PGPASSWORD
N apisecret
N appSecret
N consumer_secret
N slack_bot_token
N personal_access_token
N gitlab_pat
N id_token
N csrf_token
N wandb_key
N neptune_api_token
N anthropic_key
N clearml_secret
N mlflow_tracking_password
N s3_secret
N gcp_credentials
N service_account_key
N sas_token
N account_key
N ssh_key
N signing_key
N hmac_key
N one_time_password
N session_cookie
N license_key
N pre_shared_key
N webhook_secret
N x_api_key
N registry_auth
N model.hub.access_token
N trainer/logger/pw
T password: {F}
T Password is: {F}
T {"user": "me", "password": "{F}"}
T {'lr': 0.1, 'api_token': '{F}'}
T {"a": {"client_secret" : "{F}", "n": 3}}
T X-Auth-Token: {F}
T curl -H 'X-Api-Key: {F}' https://example.org/v1
T Authorization: Token {F}
T authorization: {F}
T Proxy-Authorization: Basic {F}
T export HF_TOKEN={F}
T db_password = {F}
T Cookie: session={F}
T DefaultEndpointsProtocol=https;AccountName=x;AccountKey={F}==;EndpointSuffix=y
T could not connect to postgresql://me:{F}@db/mlflow: timeout
T -----BEGIN RSA PRIVATE KEY-----\n{F}\n{F}\n-----END RSA PRIVATE KEY-----
T -----BEGIN OPENSSH PRIVATE KEY-----\n{F}
T use sk_live_{24} for it
T xapp-1-A1-{10d}-{24}
T SG.{22}.{43}
T npm_{36}
T glrt-{20}
T AIza{35}
T dop_v1_{64h}
T shpat_{32h}
T sk-ant-api03-{90}
T eyJ{20}.eyJ{30}.{40}
T ya29.{60}
T pypi-AgEIcHlwaS5vcmc{60}
T key: gsk_{52}
C train.py --api-key {F} --lr 0.1
C train.py --pw={F}
C train.py --db-password {F}
C train.py --auth_token={F}
C train.py --hub.token {F} --epochs 3
C train.py +logger.api_token={F}
C curl -u me:{F} https://example.org
C mysql --user=root --password={F}
"""

INNOCENTS = r"""
N aws_profile=research
N password_policy=strict
N webhook_timeout=30
N jwt_algorithm=HS256
N auth_method=basic
N credential_type=file
N token_type=word
N tokens_per_step=4096
N keypoints=17
N key_padding_mask=left
N hotkey=ctrl
N passenger_count=4
N bypass=on
N forward_pass=2
N pat_stride=2
N patience=5
N patch_size=16
N pin_memory=yes
N private_dataset=cifar10
N secret_ratio=0.1
N credit_limit=100
N signature_kernel=rbf
N session_length=30
N key_size=2048
N api_version=v2
N access_mode=read
N storage_class=hot
N account_name=alice
N username=alice
N oauth_provider=google
N api_key_env=OPENAI_API_KEY
N password_file=/run/secrets/db
N private_key_path=/home/me/key
N authority=standard
N authored_by=Jane
N secretion=low
N cookie_cutter=template
N passband=0.3
N bearer_layer=5
N token_budget=12000
T the secret of good training is patience
T the password must be at least 12 characters long
T step: 3, loss: 0.3, tokens: 512
T {"max_tokens": 512, "tokenizer": "bert-base"}
T {'key': 'value', 'pass': 3}
T author: Jane Doe
T commit 3f786850e387550fdab836ed7e6dc881de23001b
T 123e4567-e89b-12d3-a456-426614174000
T sha256:{64h}
T sk-learn is a library
T the hf_hub folder and the glpat pattern
T pass rate: 0.93
T keyword=value; other_key=7
T see https://example.org/docs/tokens?page=2#passwords
T layers.0.key.weight
T an authorization error: forbidden
T no api key was given
T basic blocks, bearer wall
T -----BEGIN CERTIFICATE-----
T /data/imagenet/train/n01440764_10026.JPEG
C train.py --tokenizer bert --max-tokens 512
C train.py --key-dim 64 --lr 0.1
C train.py --use-auth-token --lr 0.1
C train.py --password-length 12 --author Jane
C train.py model.key_dim=64 data.token_type=word
C train.py --passes 3 --secretary Ann
"""
