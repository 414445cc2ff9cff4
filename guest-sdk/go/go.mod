module ktables

go 1.24
