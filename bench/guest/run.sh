# What the benchmark's guest runs: the workloads that the kernel's command line names, NAME/PERCENT each, or nothing: bench=idle.
asked=$(sed -n 's/.*bench=\([^ ]*\).*/\1/p' /proc/cmdline)
if [ "$asked" = idle ]; then
    echo "@@idle"
    sleep 5
    exit
fi
P=/bench/bin W=/bench T=/tmp
. /bench/workloads.sh
mount -t tmpfs -o size=80% tmp /tmp
for pair in $(echo "$asked" | tr , ' '); do
    name=${pair%/*} S=${pair#*/}
    prepare "$name"
    echo "@@start $name"
    work "$name" >/tmp/out
    code=$?
    echo "@@end $name $code $(md5sum </tmp/out | cut -c1-12)"
    rm -f /tmp/data /tmp/part /tmp/other /tmp/hole /tmp/small
done
