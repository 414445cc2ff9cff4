;; A codec of values that returns what it receives: what every codec costs at least.
(module
  (memory (export "memory") 1)
  ;; The next free address. The first 64 bytes are the answers.
  (global $next (mut i32) (i32.const 64))

  (func (export "cabi_realloc") (param i32 i32 i32) (param $len i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (global.set $next (i32.add (local.get $at) (local.get $len)))
    (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
      (then
        (if (i32.eq
              (memory.grow (i32.add (i32.div_u (local.get $len) (i32.const 65536)) (i32.const 1)))
              (i32.const -1))
          (then (unreachable)))))
    (local.get $at))

  (func $store (param $at i32) (param $bytes i32) (param $len i32) (param $ends i32) (param $count i32)
    (i32.store (local.get $at) (local.get $bytes))
    (i32.store offset=4 (local.get $at) (local.get $len))
    (i32.store offset=8 (local.get $at) (local.get $ends))
    (i32.store offset=12 (local.get $at) (local.get $count)))

  ;; The rest of each answer are empty lists, which are zeros.
  (func (export "ktables:codec/value-codec-batch@0.1.0#decode") (param i32 i32 i32 i32 i32 i32) (result i32)
    (call $store (i32.const 0) (local.get 0) (local.get 1) (local.get 2) (local.get 3))
    (i32.const 0))
  (func (export "ktables:codec/value-codec-batch@0.1.0#encode") (param i32 i32 i32 i32) (result i32)
    (call $store (i32.const 32) (local.get 0) (local.get 1) (local.get 2) (local.get 3))
    (i32.const 32))

  (func $release (param i32) (global.set $next (i32.const 64)))
  (export "cabi_post_ktables:codec/value-codec-batch@0.1.0#decode" (func $release))
  (export "cabi_post_ktables:codec/value-codec-batch@0.1.0#encode" (func $release)))
