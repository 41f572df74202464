#!/usr/bin/env bash
# MONAI 1.6.1: an override of None on the command line of `monai.bundle run` is passed over, and nothing says so.
#
# Expected: `--gradient_clip None` sets the key to None, as `--gradient_clip 2.0` sets it to 2.0: values on this command line are Python's.
# Seen: the run takes the config's own value. The expression '$None' sets it.
# Why: overrides that are None count as not given (update_kwargs, ignore_none). In a file of arguments (--args_file) a null is taken.
# Who is hit: whoever switches a part of a Model Zoo bundle off by None (a scheduler, mixed precision, a limit): it stays on, in
#   training, too, and the log's summary of the arguments does not show it.
# Source: monai/bundle/scripts.py (update_kwargs), and python-fire, which reads the text None as Python's None.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 monai==1.6.1 numpy==2.2.6 fire==0.7.1
cd "$folder"
echo '{"gradient_clip": 1.0, "run": "$print(\"gradient_clip is\", @gradient_clip)"}' > config.json
echo '{"config_file": "config.json", "gradient_clip": null}' > arguments.json
value() { "$folder/venv/bin/python" -W ignore -m monai.bundle run "$@" 2> /dev/null | sed -n 's/^gradient_clip is //p'; }
number=$(value --config_file config.json --gradient_clip 2.0)
none=$(value --config_file config.json --gradient_clip None)
expression=$(value --config_file config.json --gradient_clip '$None')
file=$(value --args_file arguments.json)
echo "--gradient_clip 2.0: $number; --gradient_clip None: $none; --gradient_clip '\$None': $expression; null in --args_file: $file"
[ "$number $none $expression $file" = "2.0 1.0 None None" ] || { echo "this has changed"; exit 1; }
