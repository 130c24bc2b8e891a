#!/bin/sh
# Make the users of the Redis or Valkey server, each with a random password, unless there are any:
#
#   sh redis-users.sh FOLDER [HOST:PORT]
#
# FOLDER/users.acl   for the server's `aclfile`; has only hashes of the passwords
# FOLDER/redis-url   Offhook's `redis_url`, for `redis_url_file`
# FOLDER/passwords   of all users: of `admin`, for you; of `replica` and `sentinel`, if you have them
set -eu
folder=$1
server=${2:-127.0.0.1:6379}
[ ! -e "$folder/users.acl" ] || exit 0
umask 077
: > "$folder/passwords"

hash_of() { # make a password for a user, note it down, and print its hash
    password=$(od -An -N 24 -tx1 /dev/urandom | tr -d ' \n')
    echo "$1 $password" >> "$folder/passwords"
    printf %s "$password" | sha256sum | cut -d ' ' -f 1
}

# No client can sign in as `default`, which is off. It has all rights because a server before the fix of
# https://github.com/valkey-io/valkey/issues/3983 reads its append-only file as this user: without
# them, it drops all transactions, and with them events, when it starts.
cat > "$folder/users.acl.new" <<END
user default off resetpass ~* &* +@all
user health on nopass resetkeys resetchannels -@all +ping
user offhook on #$(hash_of offhook) ~offhook:* ~rq:* resetchannels &offhook:* &rq:* +@all -@admin -@dangerous +info +config|get
user replica on #$(hash_of replica) resetkeys resetchannels -@all +psync +replconf +ping
user sentinel on #$(hash_of sentinel) resetkeys allchannels -@all +multi +exec +slaveof +replicaof +ping +subscribe +publish +config|rewrite +role +info +client|setname +client|kill +script|kill
user admin on #$(hash_of admin) ~* &* +@all
END
echo "redis://offhook:$(sed -n 's/^offhook //p' "$folder/passwords")@$server/0" > "$folder/redis-url"
mv "$folder/users.acl.new" "$folder/users.acl"
