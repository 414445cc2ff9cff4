module {{name}}

go 1.24

require ktables v0.0.0

replace ktables => ./ktables
