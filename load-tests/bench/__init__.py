"""`make bench`: what a turn costs here, and what it costs a chat without Dapr, in the same minutes on the same machine;
`make bench-activations` and `make bench-long`.

Layers, lowest first: cpu (processes and their time), wrk (the load), children (what is started), peers (the programs to
compare with), systems (what is measured, each with its address and its processes), calls (what a turn asks of sidecars
and Redis), first_token (how soon a stream tells something), run (the order of it all), report (ratios and spread, as a
table and as JSON), picture; activations and long beside these; options is what the commands have in common.
"""
