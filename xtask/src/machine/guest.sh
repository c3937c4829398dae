# In the machine: runs the scripts that the host puts into the folder that both have, and writes down how they ended.
set -e
mkdir -p /exchange
mount -t 9p -o trans=virtio,version=9p2000.L,cache=none,msize=131072 exchange /exchange
while read -r tag folder; do
    mkdir -p "$folder"
    # Nothing changes there while the machine runs.
    mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=131072,ro "$tag" "$folder"
done < /exchange/folders
number=1
while :; do
    while [ ! -e "/exchange/$number.ready" ]; do sleep 0.5; done
    status=0
    bash "/exchange/$number.sh" > "/exchange/$number.out" 2>&1 < /dev/null || status=$?
    echo "$status" > "/exchange/$number.status.part"
    mv "/exchange/$number.status.part" "/exchange/$number.status"
    number=$((number + 1))
done
