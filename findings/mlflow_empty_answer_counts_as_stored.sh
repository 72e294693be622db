#!/bin/sh
# MLflow's client takes an answer of 200 without a body, or with {}, for metrics that were stored, and for a run that was found:
# something between client and server that answers so loses metrics in silence. A page of HTML is an error.
# Versions: mlflow-skinny 3.17.2. Seen, and asked for again below:
#   200 with empty: log_batch no error; get_run no error
#   200 with {}: log_batch no error; get_run no error
#   200 with HTML: log_batch raises MlflowException; get_run raises MlflowException
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "mlflow-skinny==3.17.2"
cat > "$folder/probe.py" <<'PY'
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
from mlflow import MlflowClient
from mlflow.entities import Metric

BODY = b""


class Answers(BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    do_POST = do_GET = answer

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Answers)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = MlflowClient(f"http://127.0.0.1:{server.server_port}")


def outcome(call):
    try:
        call()
    except Exception as error:
        return f"raises {type(error).__name__}"
    return "no error"


for name, body in (("empty", b""), ("{}", b"{}"), ("HTML", b"<html>Please log in</html>")):
    BODY = body
    batch = outcome(lambda: client.log_batch("0" * 32, metrics=[Metric("loss", 1.0, 0, 0)]))
    run = outcome(lambda: client.get_run("0" * 32))
    print(f"200 with {name}: log_batch {batch}; get_run {run}")
PY
"$folder/venv/bin/python" "$folder/probe.py" | tee "$folder/seen"
grep "^#   200" "$0" | cut -c 5- | diff - "$folder/seen"
