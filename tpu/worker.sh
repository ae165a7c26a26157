#!/usr/bin/env bash
# Runs on every worker of a TPU. launch_tpu.sh copies this file there and calls
# it over ssh; nobody needs to call it by hand.
#
#   setup                     unpacks ~/mipd-code.tar.gz, installs what it needs
#   start ID SIGNATURE ARGS   runs python -m mipd_jax.main ARGS, detached
#   status                    prints the last start: ID SIGNATURE STATE
#   poll ID LINES             prints the STATE, then the log after LINES lines
#   stop SECONDS              asks the run to save and exit, and waits
#
# A STATE is one of: running; lost (the process is gone without an exit code:
# the machine was restarted); ended CODE, stopped CODE (`stop` was called),
# terminated CODE (the machine was going down). In the last two CODE is 0 for a
# run that exited as asked, with main's own 143 (SIGTERM) or 130.
#
# Under ~/mipd: code, the venv of each set of requirements, runs and data (the
# folders of those names in code, kept when the code changes), and one folder
# for every start with its log.
set -euo pipefail

base=$HOME/mipd
# The version that this was tested with.
readonly uv_version=0.13.9

main() {
  local command=$1
  shift
  case $command in
    setup) setup ;;
    start) start "$@" ;;
    status) status ;;
    poll) poll "$@" ;;
    stop) stop "$@" ;;
    supervise) supervise "$@" ;;
    *) echo "$0: no command $command" >&2 && return 2 ;;
  esac
}

setup() {
  mkdir -p "$base/runs" "$base/data" "$base/starts"
  rm -rf "$base/code"
  mkdir "$base/code"
  tar -xzf "$HOME/mipd-code.tar.gz" -C "$base/code"
  ln -s "$base/runs" "$base/code/runs"
  ln -s "$base/data" "$base/code/data"
  install
}

# Installs with uv: it provides Python 3.11 to 3.13 if the machine has an older
# one (Ubuntu 22.04 has 3.10), and needs no system package.
install() {
  local hash venv uv=$base/tools/bin/uv
  cd "$base/code"
  hash=$(cat requirements.txt requirements-tpu.txt constraints.txt | sha256sum)
  venv=$base/venv-${hash:0:16}
  if [[ ! -e $venv/.installed ]]; then
    [[ -x $uv ]] || python3 -m pip install --quiet --upgrade \
      --target "$base/tools" "uv==$uv_version"
    rm -rf "$venv"
    "$uv" venv --quiet --python '>=3.11,<3.14' "$venv"
    "$uv" pip install --quiet --python "$venv/bin/python" \
      -r requirements-tpu.txt -c constraints.txt
    touch "$venv/.installed"
  fi
  ln -sfn "$venv" "$base/venv"
}

start() {
  local folder=$base/starts/$1 signature=$2
  shift 2
  # The connection may break after the start: a second call changes nothing.
  [[ -e $folder/process ]] && return
  end_previous
  mkdir -p "$folder"
  printf '%s\n' "$signature" >"$folder/signature"
  : >"$folder/log"
  ln -sfn "$folder" "$base/current"
  setsid bash "$0" supervise "$folder" "$@" \
    </dev/null >>"$folder/log" 2>&1 &
  printf '%s %s\n' "$!" "$(boot)" >"$folder/process"
}

# A chip serves one process at a time.
end_previous() {
  local leader
  stop 60 >/dev/null
  [[ $(state "$base/current") == running ]] || return 0
  read -r leader _ <"$base/current/process"
  kill -KILL -- "-$leader" || true
}

# The parent of a run: waits until it ends, and records how.
supervise() {
  local folder=$1 child code interrupted='' how=ended
  shift
  # The signal is not passed on: a machine that goes down signals every process
  # itself, and a second signal would end the run before it has saved.
  trap 'interrupted=yes how=terminated' TERM
  cd "$base/code"
  PYTHONUNBUFFERED=1 "$base/venv/bin/python" -m mipd_jax.main "$@" &
  child=$!
  printf '%s\n' "$child" >"$folder/child"
  while :; do
    interrupted='' code=0
    wait "$child" || code=$?
    [[ -n $interrupted ]] || break
  done
  if ((code == 143 || code == 130)); then
    code=0 how=terminated
  fi
  [[ ! -e $folder/stop ]] || how=stopped
  # The launcher reads only whole lines.
  [[ -z $(tail -c 1 "$folder/log") ]] || echo
  printf '%s %s\n' "$how" "$code" >"$folder/exit.part"
  mv "$folder/exit.part" "$folder/exit"
}

status() {
  [[ -e $base/current ]] || { echo 'mipd-status none - none' && return; }
  local folder
  folder=$(readlink "$base/current")
  printf 'mipd-status %s %s %s  # %s\n' "${folder##*/}" \
    "$(<"$folder/signature")" "$(state "$folder")" "$(hostname)"
}

poll() {
  local folder=$base/starts/$1 seen=$2 state lines
  state=$(state "$folder")
  printf 'mipd-status %s\n' "$state"
  [[ -e $folder/log ]] || return 0
  lines=$(wc -l <"$folder/log")
  awk -v first="$seen" -v last="$lines" 'NR > last { exit } NR > first' \
    "$folder/log"
}

stop() {
  local folder=$base/current seconds=$1 child
  if [[ $(state "$folder") == running && ! -e $folder/stop ]]; then
    touch "$folder/stop"
    until [[ -s $folder/child ]]; do sleep 0.1; done
    child=$(<"$folder/child")
    kill -TERM "$child" || true
  fi
  while [[ $(state "$folder") == running ]] && ((SECONDS < seconds)); do
    sleep 0.2
  done
  printf '%s: %s\n' "$(hostname)" "$(state "$folder")"
}

state() { # state FOLDER
  local process since
  if [[ -e $1/exit ]]; then
    cat "$1/exit"
  elif [[ ! -e $1/process ]]; then
    echo none
  else
    read -r process since <"$1/process"
    if [[ $since == "$(boot)" ]] && kill -0 "$process" 2>/dev/null; then
      echo running
    elif [[ -e $1/exit ]]; then # written since the first look
      cat "$1/exit"
    else
      echo lost
    fi
  fi
}

boot() { cat /proc/sys/kernel/random/boot_id; }

# On one line, so that bash reads no further if a later copy replaces the file.
main "$@"; exit
