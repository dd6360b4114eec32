#!/usr/bin/env bash
# The ablations of docs/results.md: bench/ablations.sh digits|resnet20, after bench/curves.sh of the task.
set -euo pipefail
cd "$(dirname "$0")/.."
task=$1
dense=runs/networks/$task-{seed}.pt
if [ "$task" = digits ]; then
    epochs=10 seeds="0 1 2"
    base="rate_weight=1.2 sensitive=true"
else
    epochs=0.12 seeds=0
    base="rate_weight=0.25 num_motifs=128 fold=true ramp=0.3 fixed=0.1 sensitive=true"
fi

without() { # name of the row, settings that differ, other options
    local name=$1 settings=$2
    shift 2
    local teacher=(--teacher "$dense")
    [ "$name" = "no teacher" ] && teacher=()
    # shellcheck disable=SC2086
    .venv/bin/python -m momos.study.curves "$task" -o docs/results/ablations.jsonl \
        --ablation "$name" --epochs $epochs --seeds $seeds --start "$dense" "${teacher[@]}" \
        --treatment learned --setting $base $settings "$@"
}

without reference ""
without "no teacher" ""
without "no sensitivities" sensitive=false
without "sensitivities to the power 1/2" power=0.5
without "no rate (λ = 0)" rate_weight=0
without "full λ from the start" ramp=0
without "indices never fixed" fixed=0
if [ "$task" = digits ]; then
    without "no scales" scales=none
    without "channel scales" scales=channel
    without "s=1, k=16" "block_size=1 num_motifs=16"
    without "s=4, k=256" "block_size=4 num_motifs=256"
    without "s=8, k=256" "block_size=8 num_motifs=256"
    without "motifs of 16 bits" bits=16
    without "motifs of 4 bits" bits=4
    without "dense tensors in float32" dense_dtype=float32
    without "re-assigned every 10 steps" every=10
    without "a bank for each layer" 'groups=[["1.*"],["3.*"],["5.*"],["7.*"],["9.*"]] num_motifs=16'
    without "motifs by gradient, indices fixed" 'learn=motifs num_motifs=64'
else
    without "channel scales not folded" fold=false
    without "s=4, k=256" "block_size=4 num_motifs=256"
fi
