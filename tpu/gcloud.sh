# shellcheck shell=bash disable=SC2154,SC2034 # variables of launch_tpu.sh
# Calls of gcloud for one TPU: describe, create, delete, ssh. Part of
# launch_tpu.sh, whose flags and messages it uses.

readonly most_pause=900

cloud() { # cloud COMMAND... : gcloud compute tpus COMMAND, in zone and project
  local words=(gcloud compute tpus "$@" "--zone=$zone" --quiet)
  [[ -z $project ]] || words+=("--project=$project")
  if [[ -n $dry_run ]]; then
    printf '%s\n' "$(quoted "${words[@]}")" >&3
  else
    "${words[@]}"
  fi
}

on_worker() { # on_worker N|all COMMAND
  cloud tpu-vm ssh "$name" "--worker=$1" "--command=$2" \
    --ssh-flag=-oConnectTimeout=20 --ssh-flag=-oServerAliveInterval=30 \
    ${ssh_flags[@]+"${ssh_flags[@]}"} </dev/null
}

copy_to_all() { # copy_to_all FILE... : to the home folders
  cloud tpu-vm scp "$@" "$name:" --worker=all \
    ${ssh_flags[@]+"${ssh_flags[@]}"} </dev/null
}

# Sets state (MISSING if there is no such TPU, NO_ANSWER if Google Cloud does
# not answer), found_type and workers.
look() {
  local answer fields='state,acceleratorType.basename(),networkEndpoints.len()'
  local words=(tpu-vm describe "$name" "--format=csv[no-heading]($fields)")
  found_type='' workers=0
  if [[ -n $dry_run ]]; then
    cloud "${words[@]}"
    state=$dry_state found_type=$type workers=1
  elif answer=$(cloud "${words[@]}" 2>"$scratch/errors"); then
    IFS=, read -r state found_type workers <<<"$answer"
  elif grep -q NOT_FOUND "$scratch/errors"; then
    state=MISSING
  else
    state=NO_ANSWER
  fi
}

look_at_queue() { # sets queue_state, MISSING if nothing is queued
  local words=(queued-resources describe "$name" '--format=value(state.state)')
  if [[ -n $dry_run ]]; then
    cloud "${words[@]}"
    queue_state=$dry_queue_state
  elif ! queue_state=$(cloud "${words[@]}" 2>"$scratch/errors"); then
    grep -q NOT_FOUND "$scratch/errors" || fail_as_gcloud
    queue_state=MISSING
  fi
}

fail_as_gcloud() {
  cat "$scratch/errors" >&2
  fail "gcloud failed, as it says above" \
    "see docs/tpu.md; mostly gcloud auth login, --project or --zone" \
    "$exit_no_tpu"
}

need_ready() {
  dry_state=READY
  look
  case $state in
    READY) ;;
    NO_ANSWER) fail_as_gcloud ;;
    *) fail "$name in $zone is $state" "see --name and --zone" "$exit_no_tpu" ;;
  esac
}

# Returns when the TPU is READY; sets created if it is new.
ensure_tpu() {
  created=''
  while :; do
    look
    case $state in
      READY) check_type && return ;;
      MISSING) create ;;
      PREEMPTED | TERMINATED | UNKNOWN) say "$name is $state" && delete_tpu ;;
      STOPPED) cloud tpu-vm start "$name" ||
        fail "$name cannot be started" "delete it" "$exit_no_tpu" ;;
      NO_ANSWER) [[ -n $followed ]] || fail_as_gcloud
        wait_for "no answer of Google Cloud" ;;
      *) wait_for "$name is $state" ;;
    esac
  done
}

check_type() {
  [[ $found_type == "$type" ]] ||
    fail "$name is a $found_type, not a $type" \
      "give --type=$found_type, or another --name"
}

create() {
  if [[ -n $queued ]]; then
    create_queued
  else
    say "creating $name, a $type in $zone"
    ask_for tpu-vm create "$name" "--version=$version"
    dry_state=READY
  fi
  created=yes
}

create_queued() {
  look_at_queue
  case $queue_state in
    MISSING)
      say "asking the queue for $name, a $type in $zone"
      ask_for queued-resources create "$name" "--node-id=$name" \
        "--runtime-version=$version"
      dry_queue_state=WAITING_FOR_RESOURCES
      ;;
    FAILED | SUSPENDED) queue_anew ;;
    ACTIVE) # just now, or for long and its TPU is gone
      look
      [[ $state != MISSING ]] || queue_anew
      ;;
    *)
      wait_for "the queued resource is $queue_state"
      dry_state=READY
      ;;
  esac
}

queue_anew() {
  delete_tpu
  count_retry "the queued resource was $queue_state"
}

ask_for() { # ask_for COMMAND... : creates; retries if capacity is short
  local words=("$@" "--accelerator-type=$type")
  local passing='capacity|RESOURCE_EXHAUSTED|UNAVAILABLE|code 1[34]'
  [[ -z $spot ]] || words+=(--spot)
  if cloud "${words[@]}" ${create_flags[@]+"${create_flags[@]}"} \
    2>"$scratch/errors" </dev/null; then
    return
  fi
  if grep -qi quota "$scratch/errors"; then
    cat "$scratch/errors" >&2
    fail "no quota for $type in $zone" \
      "ask for it (IAM & Admin > Quotas), or take another type or zone" \
      "$exit_no_tpu"
  fi
  grep -qiE "$passing" "$scratch/errors" || fail_as_gcloud
  tail -n 3 "$scratch/errors" >&2
  count_retry "no $type is available in $zone now"
}

delete_tpu() {
  local words=(queued-resources delete "$name" --force)
  look_at_queue
  [[ $queue_state != MISSING ]] || words=(tpu-vm delete "$name")
  say "deleting $name"
  cloud "${words[@]}" ||
    fail "$name was not deleted: it may still be billed" \
      "see what gcloud says above, and delete it" "$exit_no_tpu"
  dry_state=MISSING dry_queue_state=MISSING
}

# Waits longer each time; `follow` resets the delay when the run is alive.
count_retry() { # count_retry REASON
  retries=$((retries + 1))
  ((retries <= max_restarts)) ||
    fail "$1, and all $max_restarts retries are used" \
      "see $logs, then start again, or try another zone" "$exit_no_tpu"
  say "$1; retry $retries of $max_restarts in $delay s"
  pause "$delay"
  delay=$((delay * 2 > most_pause ? most_pause : delay * 2))
}

wait_for() { # wait_for REASON : pauses once, prints each reason once
  [[ $1 == "$waited_for" ]] || say "$1; waiting"
  waited_for=$1
  pause "$poll_seconds"
}
