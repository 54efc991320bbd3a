// Package plugins is the door through which drivers on this node register with the kubelet: CSI
// drivers, and whatever else the kubelet has a Handler for.
//
// A driver puts a unix socket into Config.Dir or a directory below it, and serves
// pluginregistration/v1 on it. The door asks the socket what the driver is (GetInfo), hands the
// Plugin to the Handler of its type, and answers the driver with success or with the error in words
// (NotifyRegistrationStatus). A socket that is replaced is registered again. A name is deregistered
// when no socket of that name is left.
//
// Two sockets may have one name for a while, when a DaemonSet replaces its Pod. The handler then has
// the plugin of the newer socket, and the end of the older one changes nothing.
//
// observe.go reads the directory, plan.go is pure and decides, controller.go and act.go carry out.
// What a Handler has learned is not recorded: the sockets say it again to the next process.
package plugins
