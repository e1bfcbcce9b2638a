# Reads what `pip install` says and counts the packages: one line that changes on a terminal (tty=1), every tenth elsewhere.
/^(Collecting|Processing) / {
  n++
  if (tty) printf "\r  %d of %d packages", n, total
  else if (n % 10 == 0) printf "  %d of %d packages\n", n, total
  fflush()
}
/^Installing collected/ {
  printf tty ? "\r  unpacking %d packages" : "  unpacking %d packages\n", n
  fflush()
}
END { if (tty) print "" }
