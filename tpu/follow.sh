# shellcheck shell=bash disable=SC2154,SC2034 # variables of launch_tpu.sh
# Following a run on all workers. Part of launch_tpu.sh.

readonly at_once=8      # ssh connections at a time
readonly most_silent=20 # looks without an answer of a TPU that is READY
readonly most_uneven=3  # looks at workers that go on after one has failed

# Follows start `id` until it has ended; sets outcome to lost, or to the code
# to leave with.
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

# Appends what is new to the worker's log; its state goes to scratch/state.N.
poll_worker() {
  local log=$logs/$id/worker-$1.log seen told=$scratch/told.$1
  seen=$(lines_of "$log")
  on_worker "$1" "bash mipd-worker.sh poll $id $seen" \
    >"$told" 2>"$scratch/errors.$1" || : >"$told"
  [[ -z $dry_run ]] || { echo ended 0 >"$scratch/state.$1" && return; }
  status_of <"$told" >"$scratch/state.$1"
  awk 'body { print } /^mipd-status / { body = 1 }' "$told" >"$scratch/new.$1"
  # `logs` or `stop` in another terminal may have fetched the same.
  [[ $(lines_of "$log") == "$seen" ]] || return 0
  cat "$scratch/new.$1" >>"$log"
  # All workers tell the same; worker 0 also writes the results.
  [[ $1 != 0 ]] || sed 's/^/[0] /' "$scratch/new.$1" >&3
}

lines_of() { if [[ -e $1 ]]; then wc -l <"$1" | tr -d ' '; else echo 0; fi; }

# The first such line of stdin, which may have greetings of the machine first.
status_of() { sed -n '/^mipd-status /{s///;p;q;}'; }

# Sets outcome from the workers' states: going, silent (one does not answer),
# uneven (one failed, others go on), lost, or the code to leave with.
judge() {
  local worker how code going='' cut='' worst=0
  outcome=silent
  for ((worker = 0; worker < workers; worker++)); do
    [[ -s $scratch/state.$worker ]] || return 0
    read -r how code <"$scratch/state.$worker" || true
    case $how in
      running) going=yes && continue ;;
      stopped) ((code == 0)) || code=$exit_no_tpu ;;
      # Above 2 is not main's: killed, or left alone by another worker.
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
