# shellcheck shell=bash disable=SC2154,SC2034 # variables of launch_tpu.sh
# Follows a run on all workers. Part of launch_tpu.sh.

readonly at_once=8      # ssh connections at a time
readonly most_silent=20 # polls of a READY TPU without an answer
readonly most_uneven=3  # polls in which workers run on after one has failed

# Follows start `id` until it has ended; sets outcome to lost, or to the exit
# code.
follow() {
  local silent=0 uneven=0
  while :; do
    look
    case $state in
      READY) ;;
      NO_ANSWER) wait_for "no answer of Google Cloud" && continue ;;
      *) say "$name is $state" && outcome=lost && return ;;
    esac
    poll_workers
    judge
    case $outcome in
      going) silent=0 uneven=0 delay=$retry_seconds ;;
      silent) silent=$((silent + 1)) && say "not all workers answer" ;;
      uneven) uneven=$((uneven + 1)) ;;
      *) return ;;
    esac
    ((silent < most_silent)) || fail "$name does not answer any more" \
      "see docs/tpu.md; delete it if it stays so" "$exit_no_tpu"
    ((uneven < most_uneven)) || { outcome=lost && return; }
    pause "$poll_seconds"
  done
}

poll_workers() {
  local worker
  [[ -n $dry_run ]] || mkdir -p "$logs/$id"
  for ((worker = 0; worker < workers; worker++)); do
    poll_worker "$worker" &
    (((worker + 1) % at_once)) || wait
  done
  wait
}

# Appends new lines to the worker's log; writes its state to scratch/state.N.
poll_worker() {
  local log=$logs/$id/worker-$1.log seen answer=$scratch/answer.$1
  seen=$(lines_of "$log")
  on_worker "$1" "bash mipd-worker.sh poll $id $seen" \
    >"$answer" 2>"$scratch/errors.$1" || : >"$answer"
  [[ -z $dry_run ]] || { echo ended 0 >"$scratch/state.$1" && return; }
  status_of <"$answer" >"$scratch/state.$1"
  awk 'body { print } /^mipd-status / { body = 1 }' "$answer" >"$scratch/new.$1"
  # `logs` or `stop` in another terminal may have fetched the same lines.
  [[ $(lines_of "$log") == "$seen" ]] || return 0
  cat "$scratch/new.$1" >>"$log"
  # All workers log the same; worker 0 also writes the results.
  [[ $1 != 0 ]] || sed 's/^/[0] /' "$scratch/new.$1" >&3
}

lines_of() { if [[ -e $1 ]]; then wc -l <"$1" | tr -d ' '; else echo 0; fi; }

# The first status line of stdin; the machine may print a greeting before it.
status_of() { sed -n '/^mipd-status /{s///;p;q;}'; }

# Sets outcome from the workers' states: going, silent (one does not answer),
# uneven (one failed, others run on), lost, or the exit code.
judge() {
  local worker how code going='' cut='' worst=0
  outcome=silent
  for ((worker = 0; worker < workers; worker++)); do
    [[ -s $scratch/state.$worker ]] || return 0
    read -r how code <"$scratch/state.$worker" || true
    case $how in
      running) going=yes && continue ;;
      stopped) ((code == 0)) || code=$exit_no_tpu ;;
      # main has no code above 2: it was killed, or another worker failed.
      ended) ((code <= 2)) || cut=yes ;;
      *) cut=yes code=0 ;; # terminated, lost, none
    esac
    ((code == 0)) || say "worker $worker $how with exit code $code"
    ((code <= worst)) || worst=$code
  done
  outcome=$worst
  [[ -z $cut ]] || outcome=lost
  if [[ -n $going ]]; then
    outcome=going
    [[ -z $cut && $worst == 0 ]] || outcome=uneven
  fi
}
