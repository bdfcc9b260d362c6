#!/usr/bin/env bash
# Runs the paper's benchmarks for one model by EleutherAI's lm-evaluation-harness 0.4.13, unchanged: ARC (25 shots),
# ARC-Gen (0), MMLU (5), TruthfulQA (0), WinoGrande (5) and GSM8K (5), each in the model's chat template. `lm compare`
# shows the results of several models side by side.
# usage: run.sh MODEL OUT [OPTION...]
#   --backend serve|hf   answers come from `lm serve` (the default), or from the harness's own transformers
#   --device DEVICE      cpu (the default), cuda or cuda:INDEX
#   --tasks "TASK:SHOTS ..."   other tasks, or some of these
#   -- OPTION...         options for the harness, such as -- --limit 100
# $LM is a built `lm`; if it is not set, one is built. $PYTHON is a Python with the harness; if it is not set, a virtual
# environment is made once.
set -euo pipefail
fail() { echo "run.sh: $*" >&2; exit 2; }
[ $# -ge 2 ] || fail 'usage: run.sh MODEL OUT [--backend serve|hf] [--device DEVICE] [--tasks "TASK:SHOTS ..."] [-- HARNESS OPTIONS]'
model=$1 out=$2 backend=serve device=cpu
tasks='arc_challenge:25 arc_challenge_chat:0 mmlu:5 truthfulqa_mc2:0 winogrande:5 gsm8k:5'
shift 2
while [ $# -gt 0 ]; do
  case $1 in
    --backend) backend=${2:-}; shift 2 ;;
    --device) device=${2:-}; shift 2 ;;
    --tasks) tasks=${2:-}; shift 2 ;;
    --) shift; break ;;
    *) fail "expected --backend, --device, --tasks or --, got $1" ;;
  esac
done
case $backend in serve|hf) ;; *) fail "--backend: expected serve or hf, got $backend" ;; esac
[ -d "$model" ] || fail "MODEL: expected the folder of a model, got $model"

. "$(dirname "$0")/../programs.sh"
python=$(a_python harness-0.4.13 'from importlib.metadata import version; import torch, transformers; assert version("lm-eval") == "0.4.13"' \
  'lm-eval[api]==0.4.13' torch==2.11.0 transformers==5.23.0 accelerate==1.15.0)

if [ "$backend" = serve ]; then
  LM=${LM:-$(a_program lm --release)}
  told=$(mktemp)
  "$LM" serve --model "$model" --name model --port 0 --device "$device" 2> "$told" &
  server=$!
  trap 'kill $server 2>/dev/null; wait $server 2>/dev/null; rm -f "$told"' EXIT
  # It says where it listens once the model is loaded.
  until address=$(grep -om1 'http://[^ ]*' "$told"); do
    kill -0 $server 2>/dev/null || { cat "$told" >&2; exit 2; }
    sleep 0.2
  done
  # Unless it is told, the harness cuts prompts of a server's model to 2047 tokens.
  longest=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["max_position_embeddings"])' "$model/config.json")
  answers=(--model local-completions --model_args
    "model=model,base_url=$address/completions,tokenizer=$model,tokenizer_backend=huggingface,num_concurrent=4,timeout=3600,max_length=$longest"
    --batch_size 64)
else
  answers=(--model hf --model_args "pretrained=$model,dtype=float32" --device "$device" --batch_size 8)
fi
for task in $tasks; do
  "$python" -m lm_eval run "${answers[@]}" --tasks "${task%:*}" --num_fewshot "${task#*:}" --apply_chat_template --output_path "$out" "$@"
done
