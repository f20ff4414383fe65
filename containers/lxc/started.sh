# LXC's start-host hook, in the directory of what the ship wrote for the container. It is made, and
# nothing of it runs yet.
#
# Looks whether every limit is in force, and waits for wired.sh. The word "up", or why it cannot
# run, goes to the pipe of that name.
{
  say() { echo "$1"; exit 1; }
  # A process for each would be most of what a start takes.
  while read -r file value; do
    read -r found <"$file"
    [ "$found" = "$value" ] || say "the limit $value is not in force: ${file##*/} $found"
  done <limits
  read -r said <bounded
  [ "$said" = bounded ] || say "its network is not bounded: $said"
  echo up
} 1<>up 2>&1 # for reading too: then nobody has to listen
