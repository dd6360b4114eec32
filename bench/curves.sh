#!/usr/bin/env bash
# Runs what docs/results.md shows: bench/curves.sh digits|fashion|shakespeare|resnet20
# MOMOS_DATA must point at the data. Runs that are finished are not repeated.
set -euo pipefail
cd "$(dirname "$0")/.."
task=$1
curves=(.venv/bin/python -m momos.study.curves "$task" -o "docs/results/$task.jsonl")
dense=runs/networks/$task-{seed}.pt

cells() { # epochs, then options: from the dense network, with it as the teacher
    local epochs=$1
    shift
    "${curves[@]}" --epochs "$epochs" --start "$dense" --teacher "$dense" "$@"
}
learned() { cells "$1" --seeds $seeds --treatment learned --setting sensitive=true "${@:2}"; }

case $task in
digits | fashion)
    seeds="0 1 2"
    [ "$task" = digits ] && first=40 second=20 every= || { first=12 second=3 every=every=1; }
    "${curves[@]}" --epochs $first --treatment dense --seeds $seeds --keep "$dense"
    for rate in 0.7 1.2 2 3 5 0.3; do learned $second rate_weight=$rate $every; done
    if [ "$task" = fashion ]; then
        for rate in 0.7 1.2; do learned 8 rate_weight=$rate $every; done
    fi
    for bits in 2 3 4 8; do
        cells $second --seeds $seeds --treatment quantize_aware --setting bits=$bits
    done
    for sparsity in 0.5 0.7 0.8 0.9 0.95 0.98; do
        cells $second --seeds $seeds --treatment prune --setting sparsity=$sparsity
    done
    for sizes in "block_size=2 capacity=0.05" "block_size=2 num_motifs=256" \
        "block_size=4 num_motifs=256" "block_size=8 num_motifs=256" "block_size=8 num_motifs=32"; do
        cells $second --seeds $seeds --treatment sampled --setting $sizes
    done
    for rate in 0.05 8; do learned $second rate_weight=$rate $every; done
    learned $second rate_weight=0.02 num_motifs=1024 $every # the large files
    ;;
shakespeare)
    for seeds in 0 1 2; do
        "${curves[@]}" --epochs 1.25 --treatment dense --seeds $seeds --keep "$dense"
        learned 0.75 rate_weight=0.06 every=4 power=0.5 --learning-rate 0.0015
    done
    seeds=0 # the same further training without motifs, and both for longer
    cells 0.75 --seeds $seeds --treatment dense
    cells 2 --seeds $seeds --treatment dense --learning-rate 0.0025
    for learning_rate in 0.0025 0.005; do
        learned 2 rate_weight=0.06 power=0.5 --learning-rate $learning_rate
    done
    ;;
resnet20)
    seeds=0
    tuned="num_motifs=128 fold=true every=1 ramp=0.3 power=0.75 fixed=0.1"
    "${curves[@]}" --epochs 0.01 --learning-rate 1e-9 --treatment dense --keep "$dense"
    learned 1.5 rate_weight=0.14 $tuned --learning-rate 0.01
    learned 1 rate_weight=0.4 $tuned --learning-rate 0.01
    for rate in 0.05 0.14 0.25 0.4 0.6 0.9; do
        learned 0.12 rate_weight=$rate $tuned --learning-rate 0.01
    done
    learned 0.12 rate_weight=0.02 $tuned --learning-rate 0.01
    learned 0.12 rate_weight=0.005 ${tuned/128/1024} --learning-rate 0.01
    for bits in 2 3 4 8; do
        cells 0.12 --treatment quantize_aware --setting bits=$bits scale=learned
    done
    for sparsity in 0.5 0.7 0.8 0.9 0.95; do
        cells 0.12 --treatment prune --setting sparsity=$sparsity
    done
    for sizes in "block_size=2 capacity=0.05" "block_size=2 num_motifs=256" \
        "block_size=4 num_motifs=256" "block_size=8 num_motifs=256"; do
        cells 0.12 --treatment sampled --setting $sizes every=20
    done
    ;;
esac
