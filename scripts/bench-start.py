"""How long a start takes with many models, and how much of it their trials: scripts/bench-start.py BINARY MODEL RECIPE COUNT

Makes a data directory in which COUNT recipes use COUNT models that differ in one bit of one weight, starts the service
three times and says when it listens and what the trials took. The models are tried in processes of their own before the
service loads them; `took_ms` is what the service logs of that.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import blake3

binary, model, recipe, count = sys.argv[1:5]
weights = pathlib.Path(model).read_bytes()
text = pathlib.Path(recipe).read_text()
text = re.sub(r"\[calibration\][^\[]*", "", text)
with tempfile.TemporaryDirectory() as folder:
    data = pathlib.Path(folder) / "data"
    subprocess.run([binary, "init", data], check=True, stdout=subprocess.DEVNULL)
    config = data / "lineproof.toml"
    config.write_text(config.read_text().replace("127.0.0.1:7443", "127.0.0.1:0").replace("127.0.0.1:7444", "127.0.0.1:0"))
    shutil.rmtree(data / "models")
    for number in range(int(count)):
        changed = bytearray(weights)
        # The low bits of a weight in the second half of the file, where no names stand.
        changed[len(changed) * 3 // 4 // 4 * 4 + 4 * number] ^= 1
        place = data / "models" / f"copy-{number}" / "1.0.0"
        place.mkdir(parents=True)
        (place / "model.onnx").write_bytes(changed)
        own = re.sub(r'^name = ".*"', f'name = "copy-{number}"', text, count=1, flags=re.M)
        own = re.sub(r'^version = ".*"', 'version = "1.0.0"', own, count=1, flags=re.M)
        digest = blake3.blake3(bytes(changed)).hexdigest()
        own = re.sub(r'digest = "blake3:[0-9a-f]*"', f'digest = "blake3:{digest}"', own, count=1)
        (place / "recipe.toml").write_text(own)
    for _ in range(3):
        started = time.monotonic()
        service = subprocess.Popen([binary, "serve", "--data", data], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = service.stdout.readline()
        listening = time.monotonic() - started
        service.terminate()
        log = [json.loads(line)["fields"] for line in service.stderr if line.startswith("{")]
        service.wait()
        assert line.startswith("listening"), log
        refused = [fields for fields in log if "reason" in fields]
        assert not refused, refused
        tried = [fields for fields in log if "took_ms" in fields]
        trials = f"{tried[0]['models']} trials took {tried[0]['took_ms']} ms" if tried else "no trials"
        print(f"{count} recipes, {len(weights) >> 10} KiB each: listening after {listening * 1000:.0f} ms, {trials}")
