module service-record

go 1.24

require ktables v0.0.0

replace ktables => ../../guest-sdk/go
