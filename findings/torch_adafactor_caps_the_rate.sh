#!/bin/sh
# torch.optim.Adafactor takes the smaller of `lr` and one over the root of the step count: a rate above that changes nothing, while
# param_groups, schedulers and LearningRateMonitor go on showing it. Raised from 1 to 1000, the steps are the same to the bit; a
# schedule, a warm-up or a sweep above the cap has no effect. At .01 the cap is not reached in these steps.
# Versions: torch 2.13.0, numpy 2.2.6. Seen, and asked for again below:
#   lr=0.01: group says 0.01; steps 0.010 0.010 0.010 0.010 0.010
#   lr=1: group says 1; steps 1.011 0.717 0.175 0.027 0.006
#   lr=1000: group says 1000; steps 1.011 0.717 0.175 0.027 0.006
#   lr=1 and lr=1000 end at the same weights: True
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "torch==2.13.0" "numpy==2.2.6"
cat > "$folder/probe.py" <<'PY'
import torch


def trained(lr):
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 4)
    optimizer = torch.optim.Adafactor(layer.parameters(), lr=lr)
    steps = []
    for _ in range(5):
        optimizer.zero_grad()
        layer(torch.ones(2, 4)).square().sum().backward()
        before = layer.weight.detach().clone()
        optimizer.step()
        steps.append((layer.weight.detach() - before).norm().item())
    said = optimizer.param_groups[0]["lr"]
    print(f"lr={lr:g}: group says {said:g}; steps", *(f"{step:.3f}" for step in steps))
    return layer.weight.detach()


trained(0.01)
print("lr=1 and lr=1000 end at the same weights:", torch.equal(trained(1.0), trained(1000.0)))
PY
"$folder/venv/bin/python" "$folder/probe.py" | tee "$folder/seen"
grep "^#   lr=" "$0" | cut -c 5- | diff - "$folder/seen"
