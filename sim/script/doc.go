// Package script plays scenarios that are written as text: a cluster, what is
// asked of it and what is done to it, a verb a line; and says what the actors then
// say to each other. It directs a sim.Scene.
package script
