# Reads on its input which process groups there are; when the input ends, their parent is dead, and it ends them:
#
#   + GROUP STDIN TERM    watch GROUP; at the end give it STDIN, then after SIGTERM another TERM tenths of a second
#   - GROUP               it is about to be reaped: its number may soon be another's
#
# Only what every POSIX shell has built in, but for `sleep`.
trap '' HUP INT QUIT TERM PIPE
groups=' '
while read -r verb group grace; do
    case $verb in
    +) groups="$groups$group:$grace " ;;
    -)
        case $groups in
        *" $group:"*)
            later=${groups#* "$group":}
            # What stands between is the two numbers of this group.
            later=${later#* }
            groups="${groups%% "$group":*} ${later#* }"
            ;;
        esac
        ;;
    esac
done

# Waits until nobody is left in group $1, for at most $2 tenths of a second.
gone() {
    left=$2
    while kill -s 0 -- "-$1" 2>/dev/null; do
        [ "$left" -gt 0 ] || return 1
        left=$((left - 1))
        sleep 0.1 || sleep 1
    done
}

end() {
    gone "$1" "$2" && return
    kill -s TERM -- "-$1" 2>/dev/null
    gone "$1" "$3" || kill -s KILL -- "-$1" 2>/dev/null
}

set -- $groups
while [ $# -ge 2 ]; do
    end "${1%%:*}" "${1#*:}" "$2" &
    shift 2
done
wait
