// Package cloud tests gantry cloud as its users meet it: the binary is started,
// asked by the stock openstack client and by gophercloud, stopped, killed and
// started again.
package cloud
