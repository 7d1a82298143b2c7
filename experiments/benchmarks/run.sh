#!/bin/sh
# All measurements of this directory, from the root of the repository: DATA=DIRECTORY sh experiments/benchmarks/run.sh
# README.md beside this file says what DIRECTORY holds. What is done already is not done again.
set -eu
here=experiments/benchmarks
runs=runs/benchmarks
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

study() { peft-lightning study "$here/study_$1.yaml" --source "$2"; }

python "$here/subsets.py" "$DATA" "$runs/subsets"
study sms_spam "$DATA/text_classification/sms_spam"
study sst2 "$DATA/glue"
study corporate_messaging "$DATA/text_classification/crowdflower_corporate_messaging"
study mnli "$runs/subsets/mnli"
study stsb "$DATA/glue"
study amazon_polarity "$DATA/amazon_polarity"
study squad "$runs/subsets/squad"
study cola "$DATA/glue"
python "$here/table.py"

python "$here/random_t5.py" "$runs/random_t5" "$runs"/subsets/xsum/train.jsonl "$runs"/subsets/wmt16_en_ro/train.??
for name in xsum wmt16_en_ro; do
    for method in FullFineTuning LoRA; do
        run="$runs/$name/$method"
        peft-lightning fit --config "$here/$name.yaml" --model "$method" --run_dir "$run"
        peft-lightning test "$run"
        [ -e "$run/predictions.jsonl" ] || peft-lightning predict "$run"
    done
    peft-lightning summary "$runs/$name"/*
done
