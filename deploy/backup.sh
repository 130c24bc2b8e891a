#!/bin/sh
# Copy everything that Offhook needs into one archive while it runs. As root, on the machine of the inbox:
#
#   sh backup.sh ARCHIVE.tar
#
# Set in the environment what differs from a Debian machine:
#   CLIENT   the server's client and how it signs in; a password goes into REDISCLI_AUTH, not here
#   DATA     the folder with the server's `appendonlydir`
#   JOURNAL  the receivers' journal; `CONFIG` the folder of offhook.toml and the secrets. Empty: none
# docs/backup.md says how to restore it.
set -eu
archive=$1
client=${CLIENT:-valkey-cli}
data=${DATA:-/var/lib/valkey}
journal=${JOURNAL-/var/lib/offhook/journal}
config=${CONFIG-/etc/offhook}
umask 077 # the archive has the secrets

setting() { $client config get "$1" | tail -n 1; }
state() { $client info persistence | tr -d '\r' | sed -n "s/^$1://p"; }

[ "$(setting appendonly)" = yes ] || { echo "the server has no append-only file" >&2; exit 1; }

# The files may grow while they are copied, but not be rewritten.
percentage=$(setting auto-aof-rewrite-percentage)
trap '$client config set auto-aof-rewrite-percentage "$percentage" >/dev/null' EXIT
trap 'exit 1' INT TERM
$client config set auto-aof-rewrite-percentage 0 >/dev/null
while [ "$(state aof_rewrite_in_progress)$(state aof_rewrite_scheduled)" != 00 ]; do sleep 1; done

# The journal first: events that move from it into the inbox are then in both, and are restored once.
set --
[ -z "$journal" ] || [ ! -e "$journal" ] || set -- -C "$(dirname "$journal")" "$(basename "$journal")"
set -- "$@" -C "$data" appendonlydir
[ -z "$config" ] || set -- "$@" -C "$(dirname "$config")" "$(basename "$config")"
copied=0
tar --create --file "$archive.part" --warning=no-file-changed --warning=no-file-removed "$@" || copied=$?
[ "$copied" -le 1 ] || exit "$copied" # 1: a file grew, or a journal was emptied
sync "$archive.part"
mv "$archive.part" "$archive"
