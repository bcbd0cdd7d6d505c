// Command netbench measures the networks of the host (netbridge) beside docker's
// bridge, in one run: setting up and taking down the network of one instance,
// with 1 and with many others there; changing a group with 200 members; TCP
// between instances and to a machine outside.
//
// Both have a host of their own, a network namespace with a machine outside, and
// the same programs send and receive in the namespaces of the instances. It ends
// with the bars of the project and exits with 1 when one is missed.
// functional/bench-net starts it.
package main
