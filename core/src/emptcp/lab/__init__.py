# SPDX-License-Identifier: Apache-2.0
"""Hosts, links and real MPTCP traffic on one machine, without a NIC and without a trace left behind.

A lab is two hosts (network namespaces ``a`` and ``b``) joined by one or more paths. Start reading at
``topology.two_hosts``; ``scenario`` runs the demonstration, ``report`` and ``picture`` show it.

==================  ==============================================================================
hosts and links
path, options       what a path is (rate, round-trip time, queue, names, addresses), and how it is written
topology            ``two_hosts`` and ``keep``: put all of the following together
host, namespace     run commands in a host, read its counters; make and remove namespaces
settings            buffers and congestion control of a host
links, offload      veth pairs, veth pairs with netem, or TAP devices and the link process
relay, tap          the link process: rate, delay and queue of every path, in user space
state, cleanup      one record per lab, so that a crash can be cleaned up; removes what a record names
process             children that die with us, and telling a process from a later one with the same pid
traffic and runs
sockets             MPTCP sockets as a program uses them
transfer, duplex    every byte value both ways over MPTCP, compared byte by byte; one end of it
echo                a connection whose bytes come back
traffic             a one-way stream that lasts as long as a run
meter, recorder     bytes, RTT and backup bit of each subflow by sock_diag; ten times a second
steering            applies policy files inside a lab, under a table name of the lab's own
scenario, progress  two paths, one connection, a policy that comes and goes; tells of it meanwhile
measure             rates and shares (pure)
report, picture     verdict, table, JSON (pure); SVG, PNG or PDF
==================  ==============================================================================
"""
