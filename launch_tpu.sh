#!/usr/bin/env bash
# Trains on a Google Cloud TPU: see `usage` below, and docs/tpu.md.
#
# Flags and commands are here, calls of gcloud in tpu/gcloud.sh, following a run
# in tpu/follow.sh; tpu/worker.sh runs on the TPU's machines. It must work with
# macOS's bash 3.2: no associative arrays, and arrays that may be empty are
# written ${a[@]+"${a[@]}"}.
set -euo pipefail

usage() {
  cat <<'END'
Usage: ./launch_tpu.sh [COMMAND] --name=NAME --zone=ZONE [FLAGS] [-- ARGS]

  ./launch_tpu.sh --name=mipd --zone=us-west4-a --type=v5litepod-8 --spot \
    -- --config=configs/ov_swig.py --workdir=gs://BUCKET/run1

Commands:
  run     (default) creates the TPU or uses the existing one, copies the code,
          installs requirements-tpu.txt, runs `python -m mipd_jax.main ARGS` on
          all workers and follows it; starts again after a preemption. If the
          run is in progress, the same command follows it.
  status  the TPU's state, and the run's state on every worker
  logs    fetches the logs of all workers
  stop    makes the run save and exit; the TPU stays and is billed
  delete  deletes the TPU and its disks
  ssh     a shell on worker 0; with -- COMMAND, the command on all workers

Flags:
  --name, --zone          which TPU
  --project=PROJECT       default: gcloud's
  --type=TYPE             run: accelerator type, such as v5litepod-8, v4-32
  --version=VERSION       run: runtime version; default: the one for the type
  --spot                  run: cheaper, but may be preempted
  --queued                run: wait in the queue of queued resources
  --create-flag=FLAG      run: passed on to `create`; may be repeated
  --ssh-flag=FLAG         passed on to `ssh` and `scp`, such as --internal-ip
  --commit=COMMIT         run: the commit; default HEAD
  --dirty                 run: HEAD with the uncommitted changes of its files
  --max-restarts=N        run: how often to start again; default 20
  --detach                run: start without following; no restarts then
  --delete-after          run: delete the TPU when the run has ended
  --logs=DIR              folder of the logs; default runs/tpu/NAME
  --dry-run               print every gcloud command, call none

Exit codes: 0 done, or stopped and saved; 1 non-finite loss; 2 bad input, here
or in ARGS; 3 no TPU, or it cannot be reached or is lost too often, or the run
was stopped before it could save.
LAUNCH_TPU_POLL and LAUNCH_TPU_RETRY: seconds between looks at the run (30) and
before the first retry (60, doubled up to 900).
END
}

readonly exit_bad_input=2 exit_no_tpu=3
# The file is absent on a TPU that this launcher has not used before.
readonly ask_status='[ ! -e mipd-worker.sh ] || bash mipd-worker.sh status'
poll_seconds=${LAUNCH_TPU_POLL:-30}
retry_seconds=${LAUNCH_TPU_RETRY:-60}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# The TPU's states that a dry run assumes.
dry_state=MISSING dry_queue_state=MISSING
waited_for='' retries=0 delay=$retry_seconds
exec 3>&1 # the user's output, also from inside $(...)

# shellcheck source=tpu/gcloud.sh
source "$root/tpu/gcloud.sh"
# shellcheck source=tpu/follow.sh
source "$root/tpu/follow.sh"

main() {
  parse "$@"
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  trap interrupted INT
  if [[ -z $dry_run ]] && ! command -v gcloud >/dev/null; then
    fail "no gcloud on the PATH" \
      "install the Google Cloud CLI: https://cloud.google.com/sdk/docs/install"
  fi
  case $action in
    run) run ;;
    status) show_status ;;
    logs) fetch_logs ;;
    stop) stop_run ;;
    delete) delete_tpu ;;
    ssh) open_shell ;;
  esac
}

# ---- Flags and messages -----------------------------------------------------

parse() {
  action=run name='' zone='' project='' type='' version='' spot='' queued=''
  commit=HEAD dirty='' max_restarts=20 detach='' delete_after='' logs=''
  dry_run='' create_flags=() ssh_flags=() run_args=()
  case ${1:-} in
    run | status | logs | stop | delete | ssh) action=$1 && shift ;;
  esac
  while (($#)); do
    case $1 in
      --name=?*) name=${1#*=} ;;
      --zone=?*) zone=${1#*=} ;;
      --project=?*) project=${1#*=} ;;
      --type=?*) type=${1#*=} ;;
      --version=?*) version=${1#*=} ;;
      --create-flag=?*) create_flags+=("${1#*=}") ;;
      --ssh-flag=?*) ssh_flags+=("${1#*=}") ;;
      --commit=?*) commit=${1#*=} ;;
      --max-restarts=?*) max_restarts=${1#*=} ;;
      --logs=?*) logs=${1#*=} ;;
      --spot) spot=yes ;;
      --queued) queued=yes ;;
      --dirty) dirty=yes ;;
      --detach) detach=yes ;;
      --delete-after) delete_after=yes ;;
      --dry-run) dry_run=yes ;;
      -h | --help) usage && exit ;;
      --) shift && run_args=("$@") && break ;;
      *) usage_error "no flag $1 (main's own come after --)" ;;
    esac
    shift
  done
  check_flags
}

check_flags() {
  [[ -n $name ]] || usage_error "--name=NAME is missing"
  [[ -n $zone ]] || usage_error "--zone=ZONE is missing"
  check_values
  [[ -z $dirty || $commit == HEAD ]] || usage_error "--dirty is HEAD's"
  [[ -z $detach || -z $delete_after ]] ||
    usage_error "--delete-after needs to follow the run: not with --detach"
  case $logs in
    '') logs=$root/runs/tpu/$name ;;
    -*) logs=./$logs ;; # mkdir must not take it for a flag
  esac
  [[ $action == run ]] || return 0
  [[ -n $type ]] || usage_error "--type=TYPE is missing"
  ((${#run_args[@]})) || usage_error "ARGS are missing: -- --config=..."
  [[ -n $version ]] || version=$(runtime_version)
}

# Values in gcloud's arguments, paths and remote commands must have Google's
# form, so that none is taken for a flag, a folder or a command.
check_values() {
  local flag name_rule='^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$'
  fits "$name" "$name_rule" || fail "--name=$(printf %q "$name") is no name" \
    "give 1 to 63 of a-z, 0-9 and -: a letter first, no - at the end"
  fits "$zone" "$name_rule" || fail "--zone=$(printf %q "$zone") is no zone" \
    "give one as gcloud compute tpus locations list has it: us-west4-a"
  [[ -z $project ]] ||
    fits "$project" '^([a-z0-9][-a-z0-9.]{0,99}:)?[a-z0-9][-a-z0-9]{0,62}$' ||
    fail "--project=$(printf %q "$project") is no project" \
      "give its id as gcloud projects list has it"
  [[ -z $type ]] || fits "$type" '^[a-z0-9][-a-z0-9]{0,62}$' ||
    fail "--type=$(printf %q "$type") is no accelerator type" \
      "give one such as v5litepod-8"
  [[ -z $version ]] || fits "$version" '^[a-z0-9][-a-z0-9._]{0,62}$' ||
    fail "--version=$(printf %q "$version") is no runtime version" \
      "give one such as v2-alpha-tpuv5-lite"
  fits "$commit" '^[^-[:cntrl:]][^[:cntrl:]]*$' ||
    fail "--commit=$(printf %q "$commit") is no commit" "give one of git log"
  fits "$max_restarts" '^(0|[1-9][0-9]{0,5})$' ||
    usage_error "--max-restarts needs a number from 0 to 999999"
  for flag in ${create_flags[@]+"${create_flags[@]}"} \
    ${ssh_flags[@]+"${ssh_flags[@]}"}; do
    fits "$flag" '^--[a-z]' || fail "$(printf %q "$flag") is no flag of gcloud" \
      "give it with its dashes: --ssh-flag=--internal-ip"
  done
  fits "$poll_seconds" '^[0-9]{1,6}([.][0-9]{1,6})?$' ||
    fail "LAUNCH_TPU_POLL=$(printf %q "$poll_seconds") is no number" \
      "give seconds"
  fits "$retry_seconds" '^(0|[1-9][0-9]{0,5})$' ||
    fail "LAUNCH_TPU_RETRY=$(printf %q "$retry_seconds") is no whole number" \
      "give seconds"
}

fits() { # fits TEXT PATTERN : independent of the locale's a-z
  local LC_ALL=C
  [[ $1 =~ $2 ]]
}

# https://cloud.google.com/tpu/docs/runtimes
runtime_version() {
  case $type in
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) usage_error "no runtime version is known for $type: give --version" ;;
  esac
}

say() {
  waited_for=''
  printf '%s launch_tpu: %s\n' "$(date +%H:%M:%S)" "$*" >&3
}

fail() { # fail PROBLEM REMEDY [CODE]
  printf 'launch_tpu: %s\n  Remedy: %s\n' "$1" "$2" >&2
  exit "${3:-$exit_bad_input}"
}

usage_error() {
  usage >&2
  fail "$1" "see above"
}

interrupted() {
  [[ $action != run ]] ||
    say "no longer following; the TPU and its run continue and are billed." \
      "The same command follows again; stop and delete end them."
  exit 130
}

pause() { [[ -n $dry_run ]] || sleep "$1"; }

quoted() { # the words, quoted for a shell
  local word mark="'" escaped="'\\''" between=''
  for word in "$@"; do
    case $word in
      '' | *[!A-Za-z0-9_./:=,@%+-]*) word="'${word//$mark/$escaped}'" ;;
    esac
    printf '%s%s' "$between" "$word"
    between=' '
  done
}

# ---- Running ----------------------------------------------------------------

run() {
  local begun followed='' created
  begun=$(date -u +%Y%m%dT%H%M%S)-$$  # two may start in one second
  pack
  while :; do
    ensure_tpu
    if [[ -n $followed || -n $created ]] || ! adopt; then
      id=$begun-$retries
      if ! deploy; then
        look
        [[ $state != READY ]] || fail "$name cannot be reached or set up" \
          "see the messages above, and docs/tpu.md" "$exit_no_tpu"
        count_retry "$name is $state" && continue
      fi
    fi
    followed=yes
    if [[ -n $detach ]]; then
      say "started; logs, status, stop and delete take the same --name" && exit
    fi
    say "following $id; logs go to $logs/$id"
    follow
    case $outcome in
      lost) count_retry "the run was cut off" ;;
      *) finish "$outcome" ;;
    esac
  done
}

# Makes the archive, and the signature that identifies the run.
pack() {
  local revision tree
  revision=$(git -C "$root" rev-parse --verify --quiet "$commit^{commit}") ||
    fail "no commit $commit in $root" "give a --commit of this git repository"
  if [[ -n $dirty ]]; then
    # A commit of the changes on no branch; it changes nothing else.
    revision=$(git -C "$root" stash create) ||
      fail "git cannot make a commit of the changes" "see what it says above"
    revision=${revision:-HEAD}
  elif [[ -n $(git -C "$root" status --porcelain --untracked-files=no) ]]; then
    say "uncommitted changes are not copied; --dirty copies them"
  fi
  git -C "$root" archive --format=tar.gz -o "$scratch/mipd-code.tar.gz" \
    "$revision"
  cp "$root/tpu/worker.sh" "$scratch/mipd-worker.sh"
  tree=$(git -C "$root" rev-parse "$revision^{tree}")
  signature=$(printf '%s\0' "$tree" "${run_args[@]}" |
    git hash-object --stdin | cut -c 1-12)
  say "code: $(git -C "$root" rev-parse --short=12 "$revision")," \
    "this run's signature: $signature"
}

# Follows the run in progress on the TPU, if it is this one.
adopt() {
  local answer current doing
  answer=$(persist on_worker 0 "$ask_status") ||
    fail "$name cannot be reached" "see docs/tpu.md" "$exit_no_tpu"
  read -r id current doing _ <<<"$(status_of <<<"$answer")" || true
  [[ $doing == running ]] || return 1
  check_id
  [[ $current == "$signature" ]] ||
    fail "another run is going on $name ($id)" \
      "stop it (./launch_tpu.sh stop), or use another --name"
}

# The name that a worker gives its start is used in a path here.
check_id() {
  fits "$id" '^[A-Za-z0-9][-A-Za-z0-9]{0,99}$' ||
    fail "$name calls its run $(printf %q "$id"): not started by this launcher" \
      "delete the TPU, or use another --name"
}

deploy() {
  local words=(bash mipd-worker.sh start "$id" "$signature")
  if ((workers > 1)); then
    words+=(--coordinator=auto)
  elif [[ -n $dry_run ]]; then
    say "(a TPU of several workers also gets --coordinator=auto below)"
  fi
  say "copying the code and installing: minutes on a new TPU"
  persist copy_to_all "$scratch/mipd-code.tar.gz" "$scratch/mipd-worker.sh" &&
    persist on_worker all 'bash mipd-worker.sh setup' &&
    persist on_worker all "$(quoted "${words[@]}" "${run_args[@]}")"
}

persist() { # a new TPU refuses ssh for a while
  "$@" || { pause "$poll_seconds" && "$@"; } ||
    { pause "$poll_seconds" && "$@"; }
}

finish() { # finish CODE
  case $dry_run$1 in
    0) say "the run has ended well" ;;
    yes*) say "(a run that ends without a preemption gets here)" ;;
    *) say "the run ended with $1: not started again. See $logs/$id" ;;
  esac
  if [[ -n $delete_after ]]; then
    delete_tpu
  else
    say "$name goes on and is billed: $(quoted ./launch_tpu.sh delete \
      "--name=$name" "--zone=$zone" ${project:+"--project=$project"})"
  fi
  exit "$1"
}

# ---- The other commands -----------------------------------------------------

show_status() {
  dry_state=READY
  look
  [[ $state != NO_ANSWER ]] || fail_as_gcloud
  say "$name in $zone: $state $found_type, $workers worker(s)"
  [[ $state == READY ]] || return 0
  on_worker all "$ask_status" ||
    fail "not all workers answer" "see docs/tpu.md" "$exit_no_tpu"
}

fetch_logs() {
  need_ready
  local answer
  answer=$(on_worker 0 "$ask_status") ||
    fail "worker 0 does not answer" "see docs/tpu.md" "$exit_no_tpu"
  [[ -z $dry_run ]] || answer='mipd-status ID - ended 0'
  read -r id _ <<<"$(status_of <<<"$answer")" || true
  [[ -n $id && $id != none ]] || fail "nothing was started on $name" \
    "start a run first; see ./launch_tpu.sh --help"
  check_id
  poll_workers
  say "logs of $id: $logs/$id"
}

stop_run() {
  need_ready
  say "asking the run to save and exit"
  on_worker all 'bash mipd-worker.sh stop 600' ||
    fail "not all workers answer" "see docs/tpu.md" "$exit_no_tpu"
  fetch_logs
}

open_shell() {
  if ((${#run_args[@]})); then
    on_worker all "${run_args[*]}" # joined as ssh does
  else
    cloud tpu-vm ssh "$name" ${ssh_flags[@]+"${ssh_flags[@]}"}
  fi
}

main "$@"
