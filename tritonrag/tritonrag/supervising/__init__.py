"""Watching over a Triton: what is dead or hung is found, told, and mended.

    stubs, canaries, stages, triton_api   what is seen of Triton: its processes, its answers, its counts
    asking                                the canaries under way, and what is slow or hangs by them
    judge, backoff, limits                what that means and what is to be done: no I/O, the clock is handed in
    mending, reloading                    a model is loaded anew until it is served
    watching, supervisor, tasks           one Triton, and one after the other: see, judge, act; one thread
    report, status, events, metrics       what people and machines are told of it
    endpoint                              the HTTP port that tells it

`tritonrag serve` uses it through `health_watch`.
"""
