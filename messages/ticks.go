package messages

// Crossed reports whether age passed a multiple of period in its last step.
func Crossed[N int | uint32](age, step, period N) bool { return age/period != (age-step)/period }
