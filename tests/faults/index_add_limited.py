"""A program for test_disk_full: `tritonrag index add` where no file may grow beyond so many bytes, as on a disk without room.

A program of its own because the limit holds for a whole process.
"""

import resource
import signal
import sys

from tritonrag.cli import main

if __name__ == "__main__":
    # The kernel would otherwise end the process; so it answers the write with an error, as a full disk does.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
    sys.argv = ["tritonrag", *sys.argv[2:]]
    main()
