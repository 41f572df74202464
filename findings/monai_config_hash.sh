#!/usr/bin/env bash
# MONAI 1.6.1: a bundle's config changes every "#" inside a text value into "::", also where the value is no reference.
#
# Expected: what JSON says: "rib #7" stays "rib #7". The separator of ids is documented for ids and references (@a#b, %a#b), and a text
#   without @, % or $ in front is documented as a value.
# Seen: names of structures, file names and Python expressions are rewritten; the parser's own content is then rewritten, too.
# Why: each text is passed through resolve_relative_ids, which begins with normalize_id, a replacement of "#" wherever it stands, so that
#   ids of before the separator "::" are understood.
# Who is hit: whoever numbers vertebrae, ribs or series with "#" in a config or as an override of `monai.bundle run`: the names in
#   masks and reports are others, a data folder is not found and an output folder is another one. In an expression \x23 is left alone.
# Source: monai/bundle/reference_resolver.py (normalize_id, resolve_relative_ids), monai/bundle/config_parser.py.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 monai==1.6.1 numpy==2.2.6
cd "$folder"
cat > config.json <<'JSON'
{"structures": {"1": "rib #7", "2": "rib 8"}, "expression": "$'series #' + '3'", "escaped": "$'series \\x233'"}
JSON
seen=$("$folder/venv/bin/python" -W ignore - 2> /dev/null <<'PYTHON'
from monai.bundle import ConfigParser

parser = ConfigParser(ConfigParser.load_config_file("config.json"))
values = [parser.get_parsed_content(key) for key in ("structures", "expression", "escaped")]
print(values[0]["1"], values[0]["2"], *values[1:], sep="; ")
PYTHON
)
echo "structures 1 and 2, expression, escaped: $seen"
[ "$seen" = "rib ::7; rib 8; series ::3; series #3" ] || { echo "this has changed"; exit 1; }
