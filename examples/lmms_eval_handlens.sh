#!/usr/bin/env bash
# Let lmms-eval evaluate Handlens over HTTP. Start `handlens serve` first; lmms-eval is installed in an environment of its own.
# The protocol has no beam search, so numbers are greedy.
set -euo pipefail
export OPENAI_API_BASE=${OPENAI_API_BASE:-http://127.0.0.1:8000/v1}
export OPENAI_API_KEY=${OPENAI_API_KEY:-none}
python -m lmms_eval \
  --model openai --force_simple \
  --model_args "model_version=${MODEL:-nano},base_url=$OPENAI_API_BASE,api_key=$OPENAI_API_KEY,timeout=600,num_concurrent=1" \
  --tasks "${1:-mmstar}" \
  --batch_size 1 \
  --output_path "${2:-results}" "${@:3}"
