# SPDX-License-Identifier: Apache-2.0
"""Hosts, links and real MPTCP traffic on one machine, without a NIC and without a trace left behind.

A lab is two hosts (network namespaces ``a`` and ``b``) joined by one or more paths. Start reading at
``topology.two_hosts``; ``scenario`` runs the demonstration, ``report`` and ``picture`` show it.

===========  =====================================================================================
path         what a path is: rate, round-trip time, queue, names and addresses (pure)
process      children that die with us, and telling a process from a later one with the same pid
namespace    network namespaces: make, enter, remove
state        one record per lab under /run/emptcp/lab, so that a crash can be cleaned up
cleanup      removes what a record names
host         run commands in a host, read its counters and settings
links        joins the hosts: veth pairs, veth pairs with netem, or TAP devices and the relay
relay        the link process: rate, delay and queue of every path, in user space
topology     ``two_hosts``: puts all of the above together
transfer     every byte value both ways over MPTCP, compared byte by byte
traffic      one-way stream that lasts as long as a scenario
subflows     bytes, RTT and backup flag of each subflow, by sock_diag
===========  =====================================================================================
"""
