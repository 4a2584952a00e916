# Shell functions of the scripts in the folders here, which source it.

# The newest run of this name; RUNS is the folder of all runs.
latest() { ls -d "${RUNS:-runs}/$1"/*/ | tail -1; }

# done_before NAME: whether a run of this name has ended well, so that a script can go on.
done_before() { compgen -G "${RUNS:-runs}/$1/*/record.json" > /dev/null && grep -q '^ "status": "done"' "$(latest "$1")record.json"; }

# train NAME OVERRIDES…
train() { done_before "$1" || polylect train "name=$1" "seed=$seed" ${RUNS:+"runs=$RUNS"} "${@:2}"; }

# evaluate NAME OVERRIDES…
evaluate() { done_before "$1" || polylect evaluate "name=$1" ${RUNS:+"runs=$RUNS"} "${@:2}"; }
