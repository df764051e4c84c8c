# The workloads of the benchmark, each a fixed amount of work; sourced natively and in the guest.
# $P: the programs. $W: this folder's scripts. $T: a folder in memory. $S: per cent of the full work.
export OPENSSL_CONF=/dev/null LC_ALL=C HOME=$T
share() { r=$(( $1 * S / 100 )); [ $r -gt 0 ] || r=1; echo $r; }

# Not timed.
prepare() {
    case $1 in
    xz | gzip | two_xz) "$P/gendata" "$(share 8)" >"$T/data"; head -c "$(share 2097152)" "$T/data" >"$T/part" ;;
    sha256 | aes) truncate -s "$(share 1536)M" "$T/hole"; head -c 262144 "$P/xz" >"$T/small" ;;
    esac
}

KEY="-K 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -iv 00"
work() {
    case $1 in
    xz) "$P/xz" -6 -T1 -c "$T/part" ;;
    two_xz) "$P/xz" -6 -T1 -c "$T/part" >"$T/other" & "$P/xz" -6 -T1 -c "$T/part"; wait; cat "$T/other" ;;
    gzip) for i in 1 2 3; do "$P/gzip" -6 -nc "$T/data"; done ;;
    sha256) "$P/openssl" dgst -sha256 -r "$T/hole" | cut -c1-64 ;;
    aes)
        for i in 1 2 3; do "$P/openssl" enc -aes-256-ctr $KEY -in "$T/hole" -out /dev/null 2>/dev/null; done
        "$P/openssl" enc -aes-256-ctr $KEY -in "$T/small" 2>/dev/null ;;
    nbody) "$P/fp" nbody "$(share 12000000)" ;;
    matmul) "$P/fp" matmul "$(share 1500)" ;;
    x87) "$P/fp" x87 "$(share 150000000)" ;;
    chase) "$P/sys" chase "$(share 6000000)" ;;
    repmovs) "$P/sys" repmovs "$(share 600)" ;;
    lua) "$P/lua" "$W/workload.lua" "$(share 400)" ;;
    sqlite) sed "s/@N@/$(share 600000)/" "$W/workload.sql" | "$P/sqlite3" :memory: ;;
    dd) "$P/busybox" dd if=/dev/zero of=/dev/null bs=1 count="$(share 4000000)" 2>/dev/null ;;
    getppid) "$P/sys" getppid "$(share 10000000)" ;;
    fork) i=$(share 1500); while [ "$i" -gt 0 ]; do "$P/true"; i=$((i - 1)); done ;;
    pipe) "$P/sys" pipe "$(share 400000)" ;;
    fault) "$P/sys" fault "$(share 100)" ;;
    jit) "$P/sys" jit "$(share 1500000)" ;;
    esac
}
