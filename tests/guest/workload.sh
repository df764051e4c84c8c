# A workload with a result that depends on nothing but the processor: run natively and in a guest, its output must be the same.
# $1: an empty folder to work in. $2: the folder of the workload's other files.
# Programs by their full names, so that the guest's busybox does not put its own in their place.
set -e
cd "$1"
export LC_ALL=C OPENSSL_CONF=/dev/null PYTHONDONTWRITEBYTECODE=1 TMPDIR=$1
key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
iv=0f0e0d0c0b0a09080706050403020100

echo "== data"
/usr/bin/python3 -I "$2/workload.py" data >data
/usr/bin/openssl dgst -sha256 data

echo "== digests"
for digest in md5 sha1 sha224 sha256 sha384 sha512 sha3-256 blake2b512 blake2s256; do
    /usr/bin/openssl dgst -$digest data
done

echo "== ciphers"
for cipher in aes-128-cbc:32:32 aes-256-cbc:64:32 aes-256-ctr:64:32 chacha20:64:32 camellia-256-cbc:64:32 des-ede3-cbc:48:16; do
    name=${cipher%%:*} sizes=${cipher#*:}
    this_key=$(printf %.${sizes%:*}s $key)
    this_iv=$(printf %.${sizes#*:}s $iv)
    /usr/bin/openssl enc -$name -K $this_key -iv $this_iv -in data -out data.$name
    /usr/bin/openssl dgst -sha256 data.$name
    /usr/bin/openssl enc -d -$name -K $this_key -iv $this_iv -in data.$name -out data.back
    cmp data data.back && echo "$name back again"
done

echo "== compressors"
for level in 1 6; do
    /usr/bin/xz -T1 -$level -c data >data.xz
    /usr/bin/xz -dc data.xz | cmp - data && /usr/bin/openssl dgst -sha256 data.xz
    /usr/bin/gzip -n -$level -c data >data.gz
    /usr/bin/gzip -dc data.gz | cmp - data && /usr/bin/openssl dgst -sha256 data.gz
done

echo "== sqlite"
/usr/bin/sqlite3 db <"$2/workload.sql"

echo "== python"
/usr/bin/python3 -I "$2/workload.py" arithmetic

echo "== compiler"
for level in -O0 -O2; do
    /usr/bin/gcc $level -c -o prog.o "$2/workload.c"
    /usr/bin/openssl dgst -sha256 prog.o
    /usr/bin/gcc -o prog prog.o -lm
    ./prog
done
echo "== end"
