;; What x86.ts, aarch64.ts, new-code.ts, corrections.ts, tensor-symbols.ts, tables.ts, the tables of records.ts and go-tables.ts, and the mover in rebase.ts do, for
;; whole stretches at a time. Those are the reference: this must write the same bytes, and a test compares them on random bytes. Built into kernel-code.ts by `npm run kernel`.
;;
;; Positions are indices: byte i of the old file that is looked at stands at $bytes + i, and goes to $skew + i.
(module
  (import "edgesync" "memory" (memory 1))

  ;; By page of addresses: 1 something, 2 code; and how many pages there are.
  (global $flags (mut i32) (i32.const 0))
  (global $known (mut i32) (i32.const 0))
  ;; Added to addresses to have those of the files.
  (global $old_base (mut i64) (i64.const 0))
  (global $new_base (mut i64) (i64.const 0))
  ;; The moves, see moves.ts: starts, their shifts, for each page its last start, how many pages and how many starts there are.
  (global $addresses (mut i32) (i32.const 0))
  (global $shifts (mut i32) (i32.const 0))
  (global $pages (mut i32) (i32.const 0))
  (global $page_count (mut i32) (i32.const 0))
  (global $used (mut i32) (i32.const 0))
  ;; Between these all addresses move by $near_shift.
  (global $near_from (mut i32) (i32.const 0))
  (global $near_to (mut i32) (i32.const 0))
  (global $near_shift (mut i32) (i32.const 0))
  (global $copy_from (mut i32) (i32.const 0))
  (global $copy_to (mut i32) (i32.const 0))
  ;; The number of the block of x86 code that was looked at last, and from which of its bytes on it has not been.
  (global $seen_block (mut i32) (i32.const -1))
  (global $seen_to (mut i32) (i32.const 0))
  ;; Bytes from $first to $last are written.
  (global $skew (mut i32) (i32.const 0))
  (global $first (mut i32) (i32.const 0))
  (global $last (mut i32) (i32.const 0))

  (func (export "open")
    (param $flags i32) (param $known i32) (param $addresses i32) (param $shifts i32) (param $pages i32) (param $page_count i32)
    (param $used i32)
    (global.set $flags (local.get $flags))
    (global.set $known (local.get $known))
    (global.set $addresses (local.get $addresses))
    (global.set $shifts (local.get $shifts))
    (global.set $pages (local.get $pages))
    (global.set $page_count (local.get $page_count))
    (global.set $used (local.get $used))
    (global.set $near_from (i32.const 0))
    (global.set $near_to (i32.const 0))
    (global.set $copy_from (i32.const 0))
    (global.set $copy_to (i32.const 0))
    (global.set $seen_block (i32.const -1)))

  ;; The bases, as halves of 32 bits.
  (func (export "bases")
    (param $old_low i32) (param $old_high i32) (param $new_low i32) (param $new_high i32)
    (global.set $old_base (call $both (local.get $old_low) (local.get $old_high)))
    (global.set $new_base (call $both (local.get $new_low) (local.get $new_high))))

  (func $both (param $low i32) (param $high i32) (result i64)
    (i64.or
      (i64.extend_i32_u (local.get $low))
      (i64.shl (i64.extend_i32_u (local.get $high)) (i64.const 32))))

  (func (export "copy") (param $to i32) (param $from i32) (param $count i32)
    (memory.copy (local.get $to) (local.get $from) (local.get $count)))

  ;; What is written by the tables below, and to where.
  (func (export "range") (param $skew i32) (param $first i32) (param $last i32)
    (global.set $skew (local.get $skew))
    (global.set $first (local.get $first))
    (global.set $last (local.get $last)))

  ;; From now on fields count from their old address plus this, and not from where the moves say: they are copied elsewhere.
  ;; What leads to between $copy_from and $copy_to, which is all that is copied with them, stays as it is.
  (func (export "place") (param $distance i32) (param $copy_from i32) (param $copy_to i32)
    (global.set $copy_from (local.get $copy_from))
    (global.set $copy_to (local.get $copy_to))
    (global.set $near_from (i32.const 0x80000000))
    (global.set $near_to (i32.const 0x7fffffff))
    (global.set $near_shift (local.get $distance)))

  ;; What stands at the page of an address: 0 for nothing.
  (func $flags_at (param $address i32) (result i32)
    (local $page i32)
    (local.set $page (i32.shr_u (local.get $address) (i32.const 12)))
    (if (i32.ge_u (local.get $page) (global.get $known)) (then (return (i32.const 0))))
    (i32.load8_u (i32.add (global.get $flags) (local.get $page))))

  ;; The last start at or before an address of a page, as 4 times its index.
  (func $find (param $page i32) (param $address i32) (result i32)
    (local.set $page (i32.add (global.get $pages) (i32.shl (local.get $page) (i32.const 2))))
    (call $search
      (i32.load (local.get $page)) (i32.load offset=4 (local.get $page)) (local.get $address)))

  ;; The last from $low to $high that is at or before an address, as 4 times its index: by halves as long as there are many, then eight
  ;; are compared at once. How far to go is hard to foretell, and foretold wrongly costs more than all else here.
  (func $search (param $low i32) (param $high i32) (param $address i32) (result i32)
    (local $middle i32) (local $here i32) (local $v v128)
    (block $few
      (loop $search
        (br_if $few (i32.lt_s (i32.sub (local.get $high) (local.get $low)) (i32.const 9)))
        (local.set $middle
          (i32.shr_u (i32.add (i32.add (local.get $low) (local.get $high)) (i32.const 1)) (i32.const 1)))
        (if (i32.le_s
              (i32.load (i32.add (global.get $addresses) (i32.shl (local.get $middle) (i32.const 2))))
              (local.get $address))
          (then (local.set $low (local.get $middle)))
          (else (local.set $high (i32.sub (local.get $middle) (i32.const 1)))))
        (br $search)))
    (local.set $v (i32x4.splat (local.get $address)))
    (local.set $here (i32.add (global.get $addresses) (i32.shl (local.get $low) (i32.const 2))))
    (i32.shl
      (i32.add
        (local.get $low)
        (i32.popcnt
          (i32.and
            (i32.sub
              (i32.shl (i32.const 1) (i32.sub (local.get $high) (local.get $low)))
              (i32.const 1))
            (i32.or
              (i32x4.bitmask (i32x4.le_s (v128.load offset=4 (local.get $here)) (local.get $v)))
              (i32.shl
                (i32x4.bitmask (i32x4.le_s (v128.load offset=20 (local.get $here)) (local.get $v)))
                (i32.const 4))))))
      (i32.const 2)))

  ;; Where an address has moved to.
  (func $target (param $address i32) (result i32)
    (i32.add
      (local.get $address)
      (i32.load
        (i32.add
          (global.get $shifts)
          (call $find (i32.shr_u (local.get $address) (i32.const 12)) (local.get $address))))))

  ;; The same for any 31 bits, also beyond the last page.
  (func $any_target (param $address i32) (result i32)
    (local $page i32) (local $low i32)
    (local.set $page (i32.shr_u (local.get $address) (i32.const 12)))
    (if (i32.lt_u (i32.add (local.get $page) (i32.const 1)) (global.get $page_count))
      (then (return (call $target (local.get $address)))))
    (if (i32.lt_u (local.get $page) (global.get $page_count))
      (then
        (local.set $low
          (i32.load (i32.add (global.get $pages) (i32.shl (local.get $page) (i32.const 2)))))))
    (i32.add
      (local.get $address)
      (i32.load
        (i32.add
          (global.get $shifts)
          (call $search
            (local.get $low)
            (i32.sub (global.get $used) (i32.const 1))
            (local.get $address))))))

  ;; The same, quick for addresses that are asked for in order.
  (func $position (param $address i32) (result i32)
    (local $place i32)
    (if (i32.or
          (i32.lt_s (local.get $address) (global.get $near_from))
          (i32.ge_s (local.get $address) (global.get $near_to)))
      (then
        (local.set $place
          (call $find (i32.shr_u (local.get $address) (i32.const 12)) (local.get $address)))
        (global.set $near_from (i32.load (i32.add (global.get $addresses) (local.get $place))))
        (global.set $near_shift (i32.load (i32.add (global.get $shifts) (local.get $place))))
        (local.set $place (i32.add (local.get $place) (i32.const 4)))
        (if (i32.lt_u (local.get $place) (i32.shl (global.get $used) (i32.const 2)))
          (then
            (global.set $near_to (i32.load (i32.add (global.get $addresses) (local.get $place)))))
          (else (global.set $near_to (i32.const 0x7fffffff))))))
    (i32.add (local.get $address) (global.get $near_shift)))

  ;; Whether a field leads into what is copied with it.
  (func $stays (param $at i32) (param $here i32) (param $target i32) (result i32)
    (local $index i32)
    (local.set $index
      (i32.add (local.get $at) (i32.sub (local.get $target) (local.get $here))))
    (i32.and
      (i32.ge_s (local.get $index) (global.get $copy_from))
      (i32.lt_s (local.get $index) (global.get $copy_to))))

  ;; The same, or whether it is before what is written: half of a block is, for a short copy.
  (func $passed (param $at i32) (param $here i32) (param $target i32) (result i32)
    (i32.or
      (i32.le_s (i32.add (local.get $at) (i32.const 4)) (global.get $first))
      (call $stays (local.get $at) (local.get $here) (local.get $target))))

  ;; 32 bits, as far as they are to be written.
  (func $write (param $at i32) (param $value i32)
    (local $end i32)
    (if (i32.and
          (i32.ge_s (local.get $at) (global.get $first))
          (i32.le_s (i32.add (local.get $at) (i32.const 4)) (global.get $last)))
      (then
        (i32.store (i32.add (global.get $skew) (local.get $at)) (local.get $value))
        (return)))
    (local.set $end (i32.add (local.get $at) (i32.const 4)))
    (loop $bytes
      (if (i32.and
            (i32.ge_s (local.get $at) (global.get $first))
            (i32.lt_s (local.get $at) (global.get $last)))
        (then (i32.store8 (i32.add (global.get $skew) (local.get $at)) (local.get $value))))
      (local.set $value (i32.shr_u (local.get $value) (i32.const 8)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $bytes (i32.lt_s (local.get $at) (local.get $end)))))

  (func $smaller (param $a i32) (param $b i32) (result i32)
    (select (local.get $a) (local.get $b) (i32.lt_s (local.get $a) (local.get $b))))

  (func $larger (param $a i32) (param $b i32) (result i32)
    (select (local.get $a) (local.get $b) (i32.gt_s (local.get $a) (local.get $b))))

  ;; Blocks of 512 bytes between two positions of a region. What begins in one goes by what was found before it there: a copy that goes on behind the
  ;; last one goes on from there.
  ;; $phase: of position 0 in its block. $block: the number of that of $from, in the file. $lowest: where the region, or what is there of it, begins. $end: where the region ends.
  ;; $address: of position 0. $absolute: 0 when operands never are, else 1, and 2 when addresses can be as low as 32 bits.
  (func (export "x86")
    (param $bytes i32) (param $skew i32) (param $from i32) (param $to i32)
    (param $phase i32) (param $lowest i32) (param $end i32) (param $address i32)
    (param $absolute i32) (param $base i32) (param $new_base i32) (param $block i32)
    (local $block_end i32) (local $start i32) (local $seen i32)
    (global.set $skew (local.get $skew))
    (block $done
      (loop $blocks
        (br_if $done (i32.ge_s (local.get $from) (local.get $to)))
        (local.set $block_end
          (i32.add
            (i32.sub
              (local.get $from)
              (i32.and (i32.add (local.get $from) (local.get $phase)) (i32.const 511)))
            (i32.const 512)))
        (global.set $first (local.get $from))
        (global.set $last (call $smaller (local.get $block_end) (local.get $to)))
        (local.set $start (i32.sub (local.get $block_end) (i32.const 528)))
        (local.set $seen
          (i32.add (i32.sub (local.get $block_end) (i32.const 512)) (global.get $seen_to)))
        (if (i32.and
              (i32.eq (global.get $seen_block) (local.get $block))
              (i32.le_s (local.get $seen) (local.get $from)))
          (then (local.set $start (local.get $seen))))
        (local.set $seen
          (call $x86_block
            (local.get $bytes)
            (call $larger (local.get $start) (local.get $lowest))
            (global.get $last)
            (call $smaller (i32.add (local.get $block_end) (i32.const 80)) (local.get $end))
            (local.get $address)
            (local.get $absolute)
            (local.get $base)
            (local.get $new_base)))
        (global.set $seen_block (local.get $block))
        (global.set $seen_to
          (i32.sub (local.get $seen) (i32.sub (local.get $block_end) (i32.const 512))))
        (local.set $block (i32.add (local.get $block) (i32.const 1)))
        (local.set $from (local.get $block_end))
        (br $blocks))))

  ;; Returns from where on it has found nothing.
  (func $x86_block
    (param $bytes i32) (param $at i32) (param $to i32) (param $limit i32) (param $address i32)
    (param $absolute i32) (param $base i32) (param $new_base i32) (result i32)
    (local $group i32) (local $part i32) (local $mask i64) (local $byte i32) (local $field i32) (local $modrm i32)
    (local $target i32) (local $value i32) (local $here i32) (local $used i32)
    (local $v v128) (local $hits v128)
    (local $c7 v128) (local $fe v128) (local $f0 v128) (local $f8 v128) (local $lift v128) (local $most v128) (local $reach i32)
    (local.set $c7 (i8x16.splat (i32.const 0xc7)))
    (local.set $fe (i8x16.splat (i32.const 0xfe)))
    (local.set $f0 (i8x16.splat (i32.const 0xf0)))
    (local.set $f8 (i8x16.splat (i32.const 0xf8)))
    ;; From here to a known page it is less than so many times 16 MiB, forwards or backwards: most of what is no operand is told apart by its last byte.
    (local.set $reach
      (call $smaller
        (i32.add
          (i32.shr_u
            (call $larger
              (i32.shl (global.get $known) (i32.const 12))
              (i32.add (local.get $address) (local.get $limit)))
            (i32.const 24))
          (i32.const 1))
        (i32.const 127)))
    (local.set $lift (i8x16.splat (local.get $reach)))
    (local.set $most
      (i8x16.splat
        (select
          (i32.shl (local.get $reach) (i32.const 1))
          (i32.const 255)
          (i32.lt_s (local.get $reach) (i32.const 127)))))
    (local.set $to (call $smaller (local.get $to) (i32.sub (local.get $limit) (i32.const 5))))
    (local.set $used (local.get $at))
    (block $done
      (loop $groups
        (br_if $done (i32.ge_s (local.get $at) (local.get $to)))
        ;; Which of 64 bytes may be the last of an opcode: where the next one is, is as hard to foretell as how many there are, so there are many at once.
        (local.set $group (local.get $at))
        (local.set $mask (i64.const 0))
        (local.set $part (i32.const 48))
        (loop $parts
          (local.set $here
            (i32.add (local.get $bytes) (i32.add (local.get $group) (local.get $part))))
          (local.set $v (v128.load (local.get $here)))
          (local.set $hits
            (v128.or
              (v128.and
                (v128.or
                  (i8x16.eq
                    (v128.and (local.get $v) (local.get $fe)) (i8x16.splat (i32.const 0xe8)))
                  (i8x16.eq
                    (v128.and (local.get $v) (local.get $c7)) (i8x16.splat (i32.const 0x05))))
                (i8x16.le_u
                  (i8x16.add (v128.load offset=4 (local.get $here)) (local.get $lift))
                  (local.get $most)))
              (v128.and
                (v128.and
                  (i8x16.eq (local.get $v) (i8x16.splat (i32.const 0x0f)))
                  (i8x16.eq
                    (v128.and (v128.load offset=1 (local.get $here)) (local.get $f0))
                    (i8x16.splat (i32.const 0x80))))
                (i8x16.le_u
                  (i8x16.add (v128.load offset=5 (local.get $here)) (local.get $lift))
                  (local.get $most)))))
          (if (local.get $absolute)
            (then
              (local.set $hits
                (v128.or
                  (v128.or
                    (v128.or
                      (local.get $hits)
                      (i8x16.eq
                        (v128.and (local.get $v) (local.get $f8)) (i8x16.splat (i32.const 0xb8))))
                    (i8x16.eq (local.get $v) (i8x16.splat (i32.const 0x68))))
                  (v128.or
                    (v128.or
                      (i8x16.eq (local.get $v) (i8x16.splat (i32.const 0xc7)))
                      (i8x16.eq (local.get $v) (i8x16.splat (i32.const 0x81))))
                    (i8x16.eq
                      (v128.and (local.get $v) (local.get $c7)) (i8x16.splat (i32.const 0x04))))))))
          (local.set $mask
            (i64.or
              (i64.shl (local.get $mask) (i64.const 16))
              (i64.extend_i32_u (i8x16.bitmask (local.get $hits)))))
          (local.set $part (i32.sub (local.get $part) (i32.const 16)))
          (br_if $parts (i32.ge_s (local.get $part) (i32.const 0))))
        (block $next_group
          (loop $hit
            (br_if $next_group (i64.eqz (local.get $mask)))
            (local.set $at
              (i32.add (local.get $group) (i32.wrap_i64 (i64.ctz (local.get $mask)))))
            (br_if $done (i32.ge_s (local.get $at) (local.get $to)))
            (local.set $here (i32.add (local.get $bytes) (local.get $at)))
            (local.set $byte (i32.load8_u (local.get $here)))
            ;; 0F has another byte behind it.
            (local.set $field
              (i32.add
                (i32.add (local.get $at) (i32.const 1))
                (i32.eq (local.get $byte) (i32.const 0x0f))))
            (block $tried
              (block $operand
                ;; E8 CALL, E9 JMP, 0F and the next Jcc: to code. A ModRM byte for [RIP + disp32]: to anything.
                (block $relative
                  (br_if $relative (i32.eqz (local.get $absolute)))
                  (br_if $relative
                    (i32.or
                      (i32.eq (i32.and (local.get $byte) (i32.const 0xfe)) (i32.const 0xe8))
                      (i32.or
                        (i32.eq (i32.and (local.get $byte) (i32.const 0xc7)) (i32.const 0x05))
                        (i32.eq (local.get $byte) (i32.const 0x0f)))))
                  ;; MOV, PUSH with an operand of 32 bits
                  (br_if $operand
                    (i32.eq (i32.and (local.get $byte) (i32.const 0xf8)) (i32.const 0xb8)))
                  (br_if $operand (i32.eq (local.get $byte) (i32.const 0x68)))
                  (local.set $modrm (i32.load8_u offset=1 (local.get $here)))
                  (if (i32.eq (i32.and (local.get $byte) (i32.const 0xc7)) (i32.const 0x04))
                    (then
                      ;; A ModRM byte with a SIB byte; with another base what follows is no operand, and the SIB byte no ModRM byte.
                      (local.set $field (i32.add (local.get $at) (i32.const 2)))
                      (br_if $operand
                        (i32.eq (i32.and (local.get $modrm) (i32.const 7)) (i32.const 5)))
                      (local.set $at (i32.add (local.get $at) (i32.const 1)))
                      (br $tried)))
                  ;; C7, 81: a ModRM byte and what belongs to it, then 32 bits
                  (local.set $field
                    (i32.add
                      (local.get $field)
                      (call $operand_bytes
                        (local.get $modrm) (i32.load8_u offset=2 (local.get $here)))))
                  (br_if $tried
                    (i32.gt_s (i32.add (local.get $field) (i32.const 4)) (local.get $limit)))
                  (br_if $operand
                    (i32.ne (i32.and (local.get $modrm) (i32.const 0xc7)) (i32.const 0x05)))
                  ;; The displacement counts from the instruction's end, which is behind both.
                  (local.set $value
                    (i32.add (local.get $address) (i32.add (local.get $at) (i32.const 2))))
                  (local.set $target
                    (i32.add
                      (i32.add (local.get $value) (i32.const 8))
                      (i32.load offset=2 (local.get $here))))
                  (br_if $operand (i32.eqz (call $flags_at (local.get $target))))
                  (if (i32.eqz
                        (call $passed
                          (i32.add (local.get $at) (i32.const 2))
                          (local.get $value)
                          (local.get $target)))
                    (then
                      (call $write
                        (i32.add (local.get $at) (i32.const 2))
                        (i32.sub
                          (i32.sub
                            (call $target (local.get $target))
                            (call $position (local.get $value)))
                          (i32.const 8)))))
                  (local.set $at (i32.add (local.get $field) (i32.const 3)))
                  (br $operand))
                (local.set $here (i32.add (local.get $address) (local.get $field)))
                (local.set $target
                  (i32.add
                    (i32.add (local.get $here) (i32.const 4))
                    (i32.load (i32.add (local.get $bytes) (local.get $field)))))
                (br_if $tried
                  (i32.eqz
                    (i32.and
                      (call $flags_at (local.get $target))
                      (select
                        (i32.const 1)
                        (i32.const 2)
                        (i32.eq (i32.and (local.get $byte) (i32.const 0xc7)) (i32.const 0x05))))))
                (local.set $at (i32.add (local.get $field) (i32.const 3)))
                (br_if $tried
                  (call $passed (local.get $field) (local.get $here) (local.get $target)))
                (call $write
                  (local.get $field)
                  (i32.sub
                    (i32.sub (call $target (local.get $target)) (call $position (local.get $here)))
                    (i32.const 4)))
                (br $tried))
              (br_if $tried (i32.ne (local.get $absolute) (i32.const 2)))
              (local.set $value (i32.load (i32.add (local.get $bytes) (local.get $field))))
              (br_if $tried (i32.lt_u (local.get $value) (local.get $base)))
              (local.set $target (i32.sub (local.get $value) (local.get $base)))
              (br_if $tried (i32.eqz (call $flags_at (local.get $target))))
              (call $write
                (local.get $field)
                (i32.add (call $target (local.get $target)) (local.get $new_base)))
              (local.set $at (i32.add (local.get $field) (i32.const 3))))
            ;; $at is the last byte that has been used up.
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (local.set $used (local.get $at))
            (br_if $groups
              (i32.ge_s (local.get $at) (i32.add (local.get $group) (i32.const 64))))
            (local.set $mask
              (i64.and
                (local.get $mask)
                (i64.shl
                  (i64.const -1)
                  (i64.extend_i32_u (i32.sub (local.get $at) (local.get $group))))))
            (br $hit)))
        (local.set $at (i32.add (local.get $group) (i32.const 64)))
        (br $groups)))
    (call $larger (local.get $used) (local.get $to)))

  ;; Bytes of a ModRM byte and what belongs to it: SIB byte and displacement.
  (func $operand_bytes (param $modrm i32) (param $sib i32) (result i32)
    (local $mode i32) (local $register i32) (local $count i32)
    (local.set $mode (i32.shr_u (local.get $modrm) (i32.const 6)))
    (local.set $register (i32.and (local.get $modrm) (i32.const 7)))
    (if (i32.eq (local.get $mode) (i32.const 3)) (then (return (i32.const 1))))
    (local.set $count
      (select (i32.const 2) (i32.const 1) (i32.eq (local.get $register) (i32.const 4))))
    (if (i32.eq (local.get $mode) (i32.const 1))
      (then (return (i32.add (local.get $count) (i32.const 1)))))
    (if (i32.eq (local.get $mode) (i32.const 2))
      (then (return (i32.add (local.get $count) (i32.const 4)))))
    (if (i32.eq (local.get $register) (i32.const 5)) (then (return (i32.const 5))))
    (if (i32.and
          (i32.eq (local.get $register) (i32.const 4))
          (i32.eq (i32.and (local.get $sib) (i32.const 7)) (i32.const 5)))
      (then (return (i32.const 6))))
    (local.get $count))

  ;; As for x86. $conditional: whether branches of short range are looked at too.
  (func (export "aarch64")
    (param $bytes i32) (param $skew i32) (param $from i32) (param $to i32)
    (param $phase i32) (param $lowest i32) (param $end i32) (param $address i32)
    (param $conditional i32)
    (local $block_end i32)
    (global.set $skew (local.get $skew))
    (block $done
      (loop $blocks
        (br_if $done (i32.ge_s (local.get $from) (local.get $to)))
        (local.set $block_end
          (i32.add
            (i32.sub
              (local.get $from)
              (i32.and (i32.add (local.get $from) (local.get $phase)) (i32.const 511)))
            (i32.const 512)))
        (global.set $first (local.get $from))
        (global.set $last (call $smaller (local.get $block_end) (local.get $to)))
        (call $aarch64_block
          (local.get $bytes)
          ;; Pairs of instructions that begin earlier do not reach here.
          (call $larger
            (call $larger (i32.sub (local.get $block_end) (i32.const 576)) (local.get $lowest))
            (i32.sub (local.get $from) (i32.const 68)))
          (global.get $last)
          (call $smaller (i32.add (local.get $block_end) (i32.const 80)) (local.get $end))
          (local.get $address)
          (local.get $conditional))
        (local.set $from (local.get $block_end))
        (br $blocks))))

  (func $aarch64_block
    (param $bytes i32) (param $at i32) (param $to i32) (param $limit i32) (param $address i32)
    (param $conditional i32)
    (local $word i32) (local $top i32) (local $here i32)
    (local.set $to
      (call $smaller (local.get $to) (i32.sub (local.get $limit) (i32.const 3))))
    (local.set $at
      (i32.add
        (local.get $at)
        (i32.and
          (i32.sub (i32.const 0) (i32.add (local.get $address) (local.get $at)))
          (i32.const 3))))
    (block $done
      (loop $words
        (br_if $done (i32.ge_s (local.get $at) (local.get $to)))
        (local.set $word (i32.load (i32.add (local.get $bytes) (local.get $at))))
        (local.set $top (i32.shr_u (local.get $word) (i32.const 24)))
        (local.set $here (i32.add (local.get $address) (local.get $at)))
        (block $next
          ;; B, BL
          (if (i32.eq (i32.and (local.get $top) (i32.const 0x7c)) (i32.const 0x14))
            (then
              (call $branch
                (local.get $at)
                (local.get $word)
                (local.get $here)
                (i32.shr_s (i32.shl (local.get $word) (i32.const 6)) (i32.const 6))
                (i32.const 0)
                (i32.const 0x03ffffff))
              (br $next)))
          ;; ADRP
          (if (i32.eq (i32.and (local.get $top) (i32.const 0x9f)) (i32.const 0x90))
            (then
              (call $pair
                (local.get $bytes)
                (local.get $at)
                (call $smaller
                  (i32.add (local.get $at) (i32.const 64))
                  (i32.sub (local.get $limit) (i32.const 4)))
                (local.get $here)
                (local.get $word))
              (br $next)))
          (br_if $next (i32.eqz (local.get $conditional)))
          ;; B.cond, CBZ, CBNZ
          (if (i32.or
                (i32.eq (local.get $top) (i32.const 0x54))
                (i32.eq (i32.and (local.get $top) (i32.const 0x7e)) (i32.const 0x34)))
            (then
              (call $branch
                (local.get $at)
                (local.get $word)
                (local.get $here)
                (i32.shr_s (i32.shl (local.get $word) (i32.const 8)) (i32.const 13))
                (i32.const 5)
                (i32.const 0x00ffffe0))
              (br $next)))
          ;; TBZ, TBNZ
          (if (i32.eq (i32.and (local.get $top) (i32.const 0x7e)) (i32.const 0x36))
            (then
              (call $branch
                (local.get $at)
                (local.get $word)
                (local.get $here)
                (i32.shr_s (i32.shl (local.get $word) (i32.const 13)) (i32.const 18))
                (i32.const 5)
                (i32.const 0x0007ffe0)))))
        (local.set $at (i32.add (local.get $at) (i32.const 4)))
        (br $words))))

  ;; Bits of $mask, from bit $shift on, hold the distance to the target in words.
  (func $branch
    (param $at i32) (param $word i32) (param $here i32) (param $words i32) (param $shift i32) (param $mask i32)
    (local $target i32)
    (local.set $target
      (i32.add (local.get $here) (i32.shl (local.get $words) (i32.const 2))))
    (if (i32.eqz (i32.and (call $flags_at (local.get $target)) (i32.const 2))) (then (return)))
    (if (call $stays (local.get $at) (local.get $here) (local.get $target)) (then (return)))
    (call $write
      (local.get $at)
      (i32.or
        (i32.and (local.get $word) (i32.xor (local.get $mask) (i32.const -1)))
        (i32.and
          (i32.shl
            (i32.shr_s
              (i32.sub (call $target (local.get $target)) (call $position (local.get $here)))
              (i32.const 2))
            (local.get $shift))
          (local.get $mask)))))

  ;; ADRP and the first instruction up to $last that adds the rest of an address to its register.
  (func $pair
    (param $bytes i32) (param $at i32) (param $last i32) (param $here i32) (param $word i32)
    (local $register i32) (local $second i32) (local $next i32) (local $scale i32)
    (local $wide i64) (local $target i32) (local $pages i32)
    (local.set $register (i32.and (local.get $word) (i32.const 31)))
    (local.set $second (local.get $at))
    (loop $search
      (local.set $second (i32.add (local.get $second) (i32.const 4)))
      (if (i32.gt_s (local.get $second) (local.get $last)) (then (return)))
      (local.set $next (i32.load (i32.add (local.get $bytes) (local.get $second))))
      (local.set $scale (i32.const -1))
      (if (i32.eq
            (i32.and (i32.shr_u (local.get $next) (i32.const 5)) (i32.const 31))
            (local.get $register))
        (then
          ;; ADD (immediate), not shifted; else LDR, STR (unsigned immediate), in units of their size: 16 bytes for the largest vectors
          (if (i32.eq (i32.shr_u (local.get $next) (i32.const 22)) (i32.const 0x244))
            (then (local.set $scale (i32.const 0)))
            (else
              (if (i32.eq
                    (i32.and (i32.shr_u (local.get $next) (i32.const 24)) (i32.const 0x3b))
                    (i32.const 0x39))
                (then
                  (local.set $scale
                    (select
                      (i32.const 4)
                      (i32.shr_u (local.get $next) (i32.const 30))
                      (i32.eq
                        (i32.and (local.get $next) (i32.const 0xc4800000))
                        (i32.const 0x04800000))))))))))
      (if (i32.lt_s (local.get $scale) (i32.const 0))
        (then
          ;; Another ADRP for the register: nothing was added to this one.
          (if (i32.eq
                (i32.and (local.get $next) (i32.const 0x9f00001f))
                (i32.or (i32.const 0x90000000) (local.get $register)))
            (then (return)))
          (br $search))))
    ;; Immediate bits 5 to 23 and 29 to 30, in pages of 4096. What goes below 0 is no address; beyond 32 bits, moves.ts sees the last start of the page.
    (local.set $pages
      (i32.shr_s
        (i32.shl
          (i32.or
            (i32.shl
              (i32.and (i32.shr_u (local.get $word) (i32.const 5)) (i32.const 0x7ffff))
              (i32.const 2))
            (i32.and (i32.shr_u (local.get $word) (i32.const 29)) (i32.const 3)))
          (i32.const 11))
        (i32.const 11)))
    (local.set $wide
      (i64.add
        (i64.add
          (i64.extend_i32_s (i32.and (local.get $here) (i32.const -4096)))
          (i64.shl (i64.extend_i32_s (local.get $pages)) (i64.const 12)))
        (i64.extend_i32_s
          (i32.shl
            (i32.and (i32.shr_u (local.get $next) (i32.const 10)) (i32.const 0xfff))
            (local.get $scale)))))
    (if (i64.lt_s (local.get $wide) (i64.const 0)) (then (return)))
    (local.set $target (i32.wrap_i64 (local.get $wide)))
    (if (i32.eqz (call $flags_at (local.get $target))) (then (return)))
    (local.set $target
      (i32.add
        (local.get $target)
        (i32.load
          (i32.add
            (global.get $shifts)
            (call $find
              (i32.shr_u (local.get $target) (i32.const 12))
              (select
                (local.get $target)
                (i32.const 0x7fffffff)
                (i64.lt_s (local.get $wide) (i64.const 0x80000000))))))))
    (local.set $pages
      (i32.sub
        (i32.shr_s (local.get $target) (i32.const 12))
        (i32.shr_s (call $position (local.get $here)) (i32.const 12))))
    (call $write
      (local.get $at)
      (i32.or
        (i32.and (local.get $word) (i32.const 0x9f00001f))
        (i32.or
          (i32.shl (i32.and (local.get $pages) (i32.const 3)) (i32.const 29))
          (i32.shl
            (i32.and (i32.shr_s (local.get $pages) (i32.const 2)) (i32.const 0x7ffff))
            (i32.const 5)))))
    (call $write
      (local.get $second)
      (i32.or
        (i32.and (local.get $next) (i32.const 0xffc003ff))
        (i32.shl
          (i32.and
            (i32.shr_u (i32.and (local.get $target) (i32.const 4095)) (local.get $scale))
            (i32.const 0xfff))
          (i32.const 10)))))

  ;; The tables. $at: where the first entry begins of which something may be written. $end: where the region ends.

  ;; The address that 64 bits hold, counted from the base; -1 when it is none that is known.
  (func $address_at (param $here i32) (result i32)
    (local $wide i64)
    (local.set $wide (i64.load (local.get $here)))
    (if (i64.ge_u (local.get $wide) (i64.const 0x800000000000)) (then (return (i32.const -1))))
    (local.set $wide (i64.sub (local.get $wide) (global.get $old_base)))
    (if (i64.ge_u
          (i64.shr_u (local.get $wide) (i64.const 12))
          (i64.extend_i32_u (global.get $known)))
      (then (return (i32.const -1))))
    (select
      (i32.wrap_i64 (local.get $wide))
      (i32.const -1)
      (i32.load8_u
        (i32.add
          (global.get $flags)
          (i32.wrap_i64 (i64.shr_u (local.get $wide) (i64.const 12)))))))

  ;; Where an address has moved to, in 64 bits, unless it is -1.
  (func $write_address (param $at i32) (param $address i32)
    (local $value i64)
    (if (i32.lt_s (local.get $address) (i32.const 0)) (then (return)))
    (local.set $value
      (i64.add
        (global.get $new_base)
        (i64.add
          (i64.extend_i32_s (local.get $address))
          (i64.extend_i32_s
            (i32.load
              (i32.add
                (global.get $shifts)
                (call $find
                  (i32.shr_u (local.get $address) (i32.const 12)) (local.get $address))))))))
    (if (i32.and
          (i32.ge_s (local.get $at) (global.get $first))
          (i32.le_s (i32.add (local.get $at) (i32.const 8)) (global.get $last)))
      (then
        (i64.store (i32.add (global.get $skew) (local.get $at)) (local.get $value))
        (return)))
    (call $write (local.get $at) (i32.wrap_i64 (local.get $value)))
    (call $write
      (i32.add (local.get $at) (i32.const 4))
      (i32.wrap_i64 (i64.shr_u (local.get $value) (i64.const 32)))))

  ;; Whether an entry of some bytes is to be looked at.
  (func $is_entry (param $at i32) (param $bytes i32) (param $end i32) (result i32)
    (i32.and
      (i32.lt_s (local.get $at) (global.get $last))
      (i32.le_s (i32.add (local.get $at) (local.get $bytes)) (local.get $end))))

  (func (export "pointers") (param $bytes i32) (param $at i32) (param $end i32)
    (local $target i32)
    (block $done
      (loop $entries
        (br_if $done (i32.eqz (call $is_entry (local.get $at) (i32.const 8) (local.get $end))))
        (local.set $target (call $address_at (i32.add (local.get $bytes) (local.get $at))))
        ;; 0 is no pointer, also where it is an address.
        (if (i32.or
              (i32.ne (local.get $target) (i32.const 0))
              (i64.ge_u (global.get $old_base) (i64.const 1)))
          (then (call $write_address (local.get $at) (local.get $target))))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (br $entries))))

  (func (export "relocations")
    (param $bytes i32) (param $at i32) (param $end i32) (param $type i32)
    (local $here i32)
    (block $done
      (loop $entries
        (br_if $done (i32.eqz (call $is_entry (local.get $at) (i32.const 24) (local.get $end))))
        (local.set $here (i32.add (local.get $bytes) (local.get $at)))
        (call $write_address (local.get $at) (call $address_at (local.get $here)))
        (if (i32.eq (i32.load offset=8 (local.get $here)) (local.get $type))
          (then
            (call $write_address
              (i32.add (local.get $at) (i32.const 16))
              (call $address_at (i32.add (local.get $here) (i32.const 16))))))
        (local.set $at (i32.add (local.get $at) (i32.const 24)))
        (br $entries))))

  (func (export "symbols")
    (param $bytes i32) (param $at i32) (param $end i32) (param $old i32) (param $new i32)
    (local $here i32) (local $name i32)
    (block $done
      (loop $entries
        (br_if $done (i32.eqz (call $is_entry (local.get $at) (i32.const 24) (local.get $end))))
        (local.set $here (i32.add (local.get $bytes) (local.get $at)))
        (local.set $name (i32.load (local.get $here)))
        (if (local.get $name)
          (then
            (call $write
              (local.get $at)
              (i32.sub (call $name_target (local.get $name) (local.get $old)) (local.get $new)))))
        (call $write_address
          (i32.add (local.get $at) (i32.const 8))
          (call $address_at (i32.add (local.get $here) (i32.const 8))))
        (local.set $at (i32.add (local.get $at) (i32.const 24)))
        (br $entries))))

  ;; Where a name has moved to. One that is in no file may be beyond 31 bits: then moves.ts sees the last start of a page, or of all.
  (func $name_target (param $name i32) (param $old i32) (result i32)
    (local $address i32) (local $page i32) (local $last i32)
    (local.set $address (i32.add (local.get $name) (local.get $old)))
    (if (i32.and
          (i32.ge_u (local.get $address) (local.get $name))
          (i32.ge_s (local.get $address) (i32.const 0)))
      (then (return (call $any_target (local.get $address)))))
    (local.set $page (i32.add (i32.shr_u (local.get $address) (i32.const 12)) (i32.const 1)))
    (local.set $last (i32.sub (global.get $used) (i32.const 1)))
    (if (i32.lt_u (local.get $page) (global.get $page_count))
      (then
        (local.set $last
          (i32.load (i32.add (global.get $pages) (i32.shl (local.get $page) (i32.const 2)))))))
    (i32.add
      (local.get $address)
      (i32.load
        (i32.add (global.get $shifts) (i32.shl (local.get $last) (i32.const 2))))))

  ;; $section: its old and new address, which the words count from.
  (func (export "frame_index")
    (param $bytes i32) (param $at i32) (param $end i32) (param $section i32) (param $new i32)
    (local $target i32)
    (block $done
      (loop $entries
        (br_if $done (i32.eqz (call $is_entry (local.get $at) (i32.const 4) (local.get $end))))
        (local.set $target
          (i32.add
            (local.get $section) (i32.load (i32.add (local.get $bytes) (local.get $at)))))
        (if (call $flags_at (local.get $target))
          (then
            (call $write
              (local.get $at)
              (i32.sub (call $target (local.get $target)) (local.get $new)))))
        (local.set $at (i32.add (local.get $at) (i32.const 4)))
        (br $entries))))

  ;; Words above 0 that count from an address.
  (func (export "offsets")
    (param $bytes i32) (param $at i32) (param $end i32) (param $old i32) (param $new i32)
    (local $value i32)
    (block $done
      (loop $entries
        (br_if $done (i32.eqz (call $is_entry (local.get $at) (i32.const 4) (local.get $end))))
        (local.set $value (i32.load (i32.add (local.get $bytes) (local.get $at))))
        (if (i32.gt_s (local.get $value) (i32.const 0))
          (then
            (call $write_offset
              (local.get $at) (local.get $value) (local.get $old) (local.get $new))))
        (local.set $at (i32.add (local.get $at) (i32.const 4)))
        (br $entries))))

  ;; A value that counts from an address, when both are one of 31 bits.
  (func $write_offset (param $at i32) (param $value i32) (param $old i32) (param $new i32)
    (if (i32.lt_u (local.get $value) (i32.sub (i32.const 0x80000000) (local.get $old)))
      (then
        (call $write
          (local.get $at)
          (i32.sub
            (call $any_target (i32.add (local.get $old) (local.get $value)))
            (local.get $new))))))

  ;; Pairs of words, that count from code and from records. $origin: where the first pair begins.
  (func (export "go_table")
    (param $bytes i32) (param $at i32) (param $end i32) (param $origin i32)
    (param $code i32) (param $new_code i32) (param $records i32) (param $new_records i32)
    (local $second i32)
    (block $done
      (loop $entries
        (br_if $done (i32.eqz (call $is_entry (local.get $at) (i32.const 4) (local.get $end))))
        (local.set $second
          (i32.and (i32.sub (local.get $at) (local.get $origin)) (i32.const 4)))
        (call $write_offset
          (local.get $at)
          (i32.load (i32.add (local.get $bytes) (local.get $at)))
          (select (local.get $records) (local.get $code) (local.get $second))
          (select (local.get $new_records) (local.get $new_code) (local.get $second)))
        (local.set $at (i32.add (local.get $at) (i32.const 4)))
        (br $entries))))

  ;; Go's function records of one block, see records.ts. $to: where the block ends. $limit: where what belongs to it does.
  (func (export "go_records")
    (param $bytes i32) (param $at i32) (param $to i32) (param $limit i32)
    (param $code i32) (param $new_code i32) (param $names i32) (param $new_names i32)
    (param $tables i32) (param $new_tables i32) (param $units i32) (param $new_units i32)
    (param $data i32) (param $new_data i32)
    (local $place i32) (local $here i32) (local $next i32) (local $count i32) (local $more i32)
    (block $done
      (loop $records
        (br_if $done (i32.ge_s (local.get $at) (local.get $to)))
        (br_if $done
          (i32.gt_s (i32.add (local.get $at) (i32.const 44)) (local.get $limit)))
        (local.set $here (i32.add (local.get $bytes) (local.get $at)))
        (call $write_offset
          (local.get $at) (i32.load (local.get $here)) (local.get $code) (local.get $new_code))
        (call $write_offset
          (i32.add (local.get $at) (i32.const 4))
          (i32.load offset=4 (local.get $here))
          (local.get $names)
          (local.get $new_names))
        (local.set $place (i32.add (local.get $at) (i32.const 16)))
        (call $write_tables
          (local.get $bytes)
          (local.get $place)
          (i32.add (local.get $place) (i32.const 12))
          (local.get $limit)
          (local.get $tables)
          (local.get $new_tables))
        (call $write_unit
          (i32.add (local.get $at) (i32.const 32))
          (i32.load offset=32 (local.get $here))
          (local.get $units)
          (local.get $new_units))
        ;; The tables, and then the function data.
        (local.set $count (i32.load offset=28 (local.get $here)))
        (if (i32.gt_u (local.get $count) (i32.const 0x10000))
          (then (local.set $count (i32.const 0x10000))))
        (local.set $more (i32.load8_u offset=43 (local.get $here)))
        (local.set $place (i32.add (local.get $at) (i32.const 44)))
        (local.set $next
          (i32.add
            (local.get $at)
            (i32.and
              (i32.add
                (i32.shl
                  (call $smaller
                    (i32.add (local.get $count) (local.get $more)) (i32.const 0x10000))
                  (i32.const 2))
                (i32.const 51))
              (i32.const -8))))
        (local.set $here
          (i32.add (local.get $place) (i32.shl (local.get $count) (i32.const 2))))
        (call $write_tables
          (local.get $bytes)
          (local.get $place)
          (call $smaller (local.get $here) (local.get $to))
          (local.get $limit)
          (local.get $tables)
          (local.get $new_tables))
        (if (local.get $data)
          (then
            (call $write_tables
              (local.get $bytes)
              (local.get $here)
              (call $smaller
                (call $smaller
                  (i32.sub (local.get $next) (i32.const 3))
                  (i32.add (local.get $here) (i32.shl (local.get $more) (i32.const 2))))
                (local.get $to))
              (local.get $limit)
              (local.get $data)
              (local.get $new_data))))
        (local.set $at (local.get $next))
        (br $records))))

  ;; Words that count from an address; 0 stands for nothing.
  (func $write_tables
    (param $bytes i32) (param $at i32) (param $to i32) (param $limit i32)
    (param $old i32) (param $new i32)
    (local $value i32)
    (block $done
      (loop $words
        (br_if $done (i32.ge_s (local.get $at) (local.get $to)))
        (br_if $done (i32.gt_s (i32.add (local.get $at) (i32.const 4)) (local.get $limit)))
        (local.set $value (i32.load (i32.add (local.get $bytes) (local.get $at))))
        (if (local.get $value)
          (then
            (call $write_offset
              (local.get $at) (local.get $value) (local.get $old) (local.get $new))))
        (local.set $at (i32.add (local.get $at) (i32.const 4)))
        (br $words))))

  ;; As $write_offset, in units of four bytes.
  (func $write_unit (param $at i32) (param $value i32) (param $old i32) (param $new i32)
    (local $target i32)
    (if (i32.ge_u (local.get $value) (i32.const 0x20000000)) (then (return)))
    (local.set $target
      (i32.add (local.get $old) (i32.shl (local.get $value) (i32.const 2))))
    (if (i32.lt_s (local.get $target) (i32.const 0)) (then (return)))
    (call $write
      (local.get $at)
      (i32.wrap_i64
        (i64.shr_s
          (i64.sub
            (i64.add
              (i64.extend_i32_s (local.get $target))
              (i64.extend_i32_s
                (i32.sub (call $any_target (local.get $target)) (local.get $target))))
            (i64.extend_i32_s (local.get $new)))
          (i64.const 2)))))

  ;; Go's type data, see go-tables.ts, in blocks as code is.
  (func (export "go_types")
    (param $bytes i32) (param $from i32) (param $to i32) (param $phase i32)
    (param $origin i32) (param $end i32)
    (param $code i32) (param $new_code i32) (param $types i32) (param $new_types i32)
    (local $block_end i32)
    (block $done
      (loop $blocks
        (br_if $done (i32.ge_s (local.get $from) (local.get $to)))
        (local.set $block_end
          (i32.add
            (i32.sub
              (local.get $from)
              (i32.and (i32.add (local.get $from) (local.get $phase)) (i32.const 511)))
            (i32.const 512)))
        (global.set $first (local.get $from))
        (global.set $last (call $smaller (local.get $block_end) (local.get $to)))
        (call $go_types_block
          (local.get $bytes)
          (call $larger (i32.sub (local.get $block_end) (i32.const 528)) (local.get $origin))
          (call $smaller (i32.add (local.get $block_end) (i32.const 80)) (local.get $end))
          (local.get $origin)
          (local.get $code)
          (local.get $new_code)
          (local.get $types)
          (local.get $new_types))
        (local.set $from (local.get $block_end))
        (br $blocks))))

  (func $go_types_block
    (param $bytes i32) (param $at i32) (param $limit i32) (param $origin i32)
    (param $code i32) (param $new_code i32) (param $types i32) (param $new_types i32)
    (local $after i32) (local $here i32) (local $target i32) (local $name i32) (local $type i32)
    (local.set $at
      (i32.add
        (local.get $at)
        (i32.and (i32.sub (local.get $origin) (local.get $at)) (i32.const 3))))
    (block $done
      (loop $words
        (br_if $done (i32.ge_s (local.get $at) (global.get $last)))
        (br_if $done (i32.gt_s (i32.add (local.get $at) (i32.const 8)) (local.get $limit)))
        (local.set $here (i32.add (local.get $bytes) (local.get $at)))
        (block $no_pointer
          (br_if $no_pointer
            (i32.and (i32.sub (local.get $at) (local.get $origin)) (i32.const 7)))
          (local.set $target (call $address_at (local.get $here)))
          (br_if $no_pointer (i32.lt_s (local.get $target) (i32.const 0)))
          (if (i32.eqz (local.get $target))
            (then
              (br_if $no_pointer
                (i32.eqz (i64.ge_u (global.get $old_base) (i64.const 1))))))
          (call $write_address (local.get $at) (local.get $target))
          (local.set $at (i32.add (local.get $at) (i32.const 8)))
          (local.set $after (i32.const 1))
          (br $words))
        (block $nothing
          (local.set $name (i32.load (local.get $here)))
          (br_if $nothing (i32.eqz (call $is_name (local.get $name) (local.get $types))))
          (local.set $type (i32.load offset=4 (local.get $here)))
          (block $no_method
            (if (i32.ne (local.get $type) (i32.const -1))
              (then
                (br_if $no_method
                  (i32.eqz (call $is_type (local.get $type) (local.get $types))))))
            (br_if $no_method
              (i32.gt_s (i32.add (local.get $at) (i32.const 16)) (local.get $limit)))
            (br_if $no_method
              (i32.eqz (call $is_go_entry (i32.load offset=8 (local.get $here)) (local.get $code))))
            (br_if $no_method
              (i32.eqz (call $is_go_entry (i32.load offset=12 (local.get $here)) (local.get $code))))
            (call $write_positive
              (local.get $at) (local.get $name) (local.get $types) (local.get $new_types))
            (call $write_positive
              (i32.add (local.get $at) (i32.const 4))
              (local.get $type)
              (local.get $types)
              (local.get $new_types))
            (call $write_positive
              (i32.add (local.get $at) (i32.const 8))
              (i32.load offset=8 (local.get $here))
              (local.get $code)
              (local.get $new_code))
            (call $write_positive
              (i32.add (local.get $at) (i32.const 12))
              (i32.load offset=12 (local.get $here))
              (local.get $code)
              (local.get $new_code))
            (local.set $at (i32.add (local.get $at) (i32.const 16)))
            (br $words))
          (if (i32.eqz (call $is_type (local.get $type) (local.get $types)))
            (then
              (br_if $nothing (i32.eqz (local.get $after)))
              (br_if $nothing (i32.ne (local.get $type) (i32.const 0)))))
          (call $write_positive
            (local.get $at) (local.get $name) (local.get $types) (local.get $new_types))
          (call $write_positive
            (i32.add (local.get $at) (i32.const 4))
            (local.get $type)
            (local.get $types)
            (local.get $new_types))
          (local.set $at (i32.add (local.get $at) (i32.const 8)))
          (local.set $after (i32.const 0))
          (br $words))
        (local.set $after (i32.const 0))
        (local.set $at (i32.add (local.get $at) (i32.const 4)))
        (br $words))))

  (func $is_name (param $value i32) (param $types i32) (result i32)
    (i32.and
      (i32.lt_u (i32.sub (local.get $value) (i32.const 1)) (i32.const 0x0fffffff))
      (i32.eq
        (call $flags_at (i32.add (local.get $types) (local.get $value))) (i32.const 1))))

  (func $is_type (param $value i32) (param $types i32) (result i32)
    (if (i32.and (local.get $value) (i32.const 31)) (then (return (i32.const 0))))
    (call $is_name (local.get $value) (local.get $types)))

  (func $is_go_entry (param $value i32) (param $code i32) (result i32)
    (if (i32.eq (local.get $value) (i32.const -1)) (then (return (i32.const 1))))
    (if (i32.le_s (local.get $value) (i32.const 0)) (then (return (i32.const 0))))
    (if (i32.and (local.get $value) (i32.const 31)) (then (return (i32.const 0))))
    (i32.and
      (call $flags_at (i32.add (local.get $code) (local.get $value))) (i32.const 2)))

  ;; A value above 0 that counts from an address.
  (func $write_positive (param $at i32) (param $value i32) (param $old i32) (param $new i32)
    (if (i32.gt_s (local.get $value) (i32.const 0))
      (then
        (call $write
          (local.get $at)
          (i32.sub
            (call $target (i32.add (local.get $old) (local.get $value)))
            (local.get $new))))))

  ;; Records of .eh_frame, see records.ts. $address: of position 0.
  (func (export "frames") (param $bytes i32) (param $at i32) (param $end i32) (param $address i32)
    (local $length i32) (local $place i32) (local $here i32) (local $target i32)
    (block $done
      (loop $records
        (br_if $done (i32.eqz (call $is_entry (local.get $at) (i32.const 24) (local.get $end))))
        (local.set $place (i32.add (local.get $bytes) (local.get $at)))
        (local.set $length (i32.load (local.get $place)))
        (br_if $done (i32.gt_u (local.get $length) (i32.const 0x100000)))
        (block $next
          (br_if $next (i32.lt_u (local.get $length) (i32.const 16)))
          ;; The distance back to the CIE; 0 in one.
          (br_if $next (i32.eqz (i32.load offset=4 (local.get $place))))
          (local.set $here
            (i32.add (i32.add (local.get $address) (local.get $at)) (i32.const 4)))
          (local.set $target (i32.sub (local.get $here) (i32.load offset=4 (local.get $place))))
          (if (call $flags_at (local.get $target))
            (then
              (if (i32.eqz
                    (call $stays
                      (i32.add (local.get $at) (i32.const 4))
                      (local.get $here)
                      (local.get $target)))
                (then
                  (call $write
                    (i32.add (local.get $at) (i32.const 4))
                    (i32.sub
                      (call $position (local.get $here))
                      (call $target (local.get $target))))))))
          (call $write_distance
            (local.get $bytes)
            (i32.add (local.get $at) (i32.const 8))
            (local.get $address))
          (br_if $next (i32.ne (i32.load8_u offset=16 (local.get $place)) (i32.const 4)))
          (br_if $next (i32.eqz (i32.load offset=17 (local.get $place))))
          (call $write_distance
            (local.get $bytes)
            (i32.add (local.get $at) (i32.const 17))
            (local.get $address)))
        (local.set $at (i32.add (i32.add (local.get $at) (i32.const 4)) (local.get $length)))
        (br $records))))

  ;; 32 bits that count from where they stand, when they lead to what is known.
  (func $write_distance (param $bytes i32) (param $at i32) (param $address i32)
    (local $here i32) (local $target i32)
    (local.set $here (i32.add (local.get $address) (local.get $at)))
    (local.set $target
      (i32.add (local.get $here) (i32.load (i32.add (local.get $bytes) (local.get $at)))))
    (if (i32.eqz (call $flags_at (local.get $target))) (then (return)))
    (if (call $stays (local.get $at) (local.get $here) (local.get $target)) (then (return)))
    (call $write
      (local.get $at)
      (i32.sub (call $target (local.get $target)) (call $position (local.get $here)))))

  ;; New code, see new-code.ts: operands that are addresses are turned back to distances. $address: of index 0.
  (func (export "turn_x86")
    (param $at i32) (param $to i32) (param $address i32) (param $end i32)
    (local $byte i32) (local $value i32) (local $next i32)
    (block $done
      (loop $bytes
        (br_if $done (i32.gt_s (i32.add (local.get $at) (i32.const 5)) (local.get $to)))
        (local.set $byte (i32.load8_u (local.get $at)))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (block $field
          (br_if $field (i32.eq (i32.and (local.get $byte) (i32.const 0xfe)) (i32.const 0xe8)))
          (br_if $field (i32.eq (i32.and (local.get $byte) (i32.const 0xc7)) (i32.const 0x05)))
          (br_if $bytes (i32.ne (local.get $byte) (i32.const 0x0f)))
          (br_if $bytes
            (i32.ne
              (i32.and (i32.load8_u (local.get $at)) (i32.const 0xf0)) (i32.const 0x80)))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br_if $done (i32.gt_s (i32.add (local.get $at) (i32.const 4)) (local.get $to))))
        (local.set $value (i32.load (local.get $at)))
        (local.set $next (i32.add (i32.add (local.get $address) (local.get $at)) (i32.const 4)))
        (if (i32.and
              (i32.ge_s (local.get $value) (i32.sub (i32.const 0) (local.get $next)))
              (i32.lt_s (local.get $value) (local.get $end)))
          (then
            (i32.store
              (local.get $at)
              (i32.add
                (local.get $value)
                (select
                  (i32.sub (i32.const 0) (local.get $next))
                  (local.get $end)
                  (i32.ge_s (local.get $value) (i32.const 0)))))))
        (local.set $at (i32.add (local.get $at) (i32.const 4)))
        (br $bytes))))

  (func (export "turn_aarch64") (param $at i32) (param $to i32) (param $address i32)
    (local $word i32) (local $here i32)
    (block $done
      (loop $words
        (br_if $done (i32.gt_s (i32.add (local.get $at) (i32.const 4)) (local.get $to)))
        (local.set $word (i32.load (local.get $at)))
        (local.set $here (i32.add (local.get $address) (local.get $at)))
        (if (i32.eq (i32.and (local.get $word) (i32.const 0x7c000000)) (i32.const 0x14000000))
          (then
            (i32.store
              (local.get $at)
              (i32.or
                (i32.and (local.get $word) (i32.const 0xfc000000))
                (i32.and
                  (i32.sub (local.get $word) (i32.shr_u (local.get $here) (i32.const 2)))
                  (i32.const 0x03ffffff)))))
          (else
            (if (i32.eq
                  (i32.and (local.get $word) (i32.const 0x9f000000)) (i32.const 0x90000000))
              (then
                (local.set $here
                  (i32.sub
                    (i32.or
                      (i32.shl
                        (i32.and (i32.shr_u (local.get $word) (i32.const 5)) (i32.const 0x7ffff))
                        (i32.const 2))
                      (i32.and (i32.shr_u (local.get $word) (i32.const 29)) (i32.const 3)))
                    (i32.shr_u (local.get $here) (i32.const 12))))
                (i32.store
                  (local.get $at)
                  (i32.or
                    (i32.and (local.get $word) (i32.const 0x9f00001f))
                    (i32.or
                      (i32.shl (i32.and (local.get $here) (i32.const 3)) (i32.const 29))
                      (i32.shl
                        (i32.and (i32.shr_s (local.get $here) (i32.const 2)) (i32.const 0x7ffff))
                        (i32.const 5)))))))))
        (local.set $at (i32.add (local.get $at) (i32.const 4)))
        (br $words))))

  ;; Corrects copied bytes from $at to $end, see corrections.ts. $gaps, $changes: where the streams go on, and where what is ready of them ends. $gap: bytes
  ;; until the next wrong one, or -1. Leaves at $state where the streams go on, and the gap.
  ;; Returns $end, or how far it came before it had too few bytes, or a number of more than four.
  (func (export "correct")
    (param $at i32) (param $end i32) (param $gaps i32) (param $gaps_end i32)
    (param $changes i32) (param $changes_end i32) (param $gap i32) (param $state i32) (result i32)
    (local $word i32)
    (block $done
      (loop $each
        (if (i32.lt_s (local.get $gap) (i32.const 0))
          (then
            (br_if $done
              (i32.lt_s (i32.sub (local.get $gaps_end) (local.get $gaps)) (i32.const 7)))
            (local.set $word (i32.load (local.get $gaps)))
            (block $number
              (local.set $gap (i32.and (local.get $word) (i32.const 0x7f)))
              (local.set $gaps (i32.add (local.get $gaps) (i32.const 1)))
              (br_if $number (i32.eqz (i32.and (local.get $word) (i32.const 0x80))))
              (local.set $gap
                (i32.or
                  (local.get $gap)
                  (i32.and (i32.shr_u (local.get $word) (i32.const 1)) (i32.const 0x3f80))))
              (local.set $gaps (i32.add (local.get $gaps) (i32.const 1)))
              (br_if $number (i32.eqz (i32.and (local.get $word) (i32.const 0x8000))))
              (local.set $gap
                (i32.or
                  (local.get $gap)
                  (i32.and (i32.shr_u (local.get $word) (i32.const 2)) (i32.const 0x1fc000))))
              (local.set $gaps (i32.add (local.get $gaps) (i32.const 1)))
              (br_if $number (i32.eqz (i32.and (local.get $word) (i32.const 0x800000))))
              (local.set $gap
                (i32.or
                  (local.get $gap)
                  (i32.and (i32.shr_u (local.get $word) (i32.const 3)) (i32.const 0xfe00000))))
              (local.set $gaps (i32.add (local.get $gaps) (i32.const 1)))
              (br_if $number (i32.ge_s (local.get $word) (i32.const 0)))
              (local.set $gaps (i32.sub (local.get $gaps) (i32.const 4)))
              (local.set $gap (i32.const -1))
              (br $done))))
        (if (i32.ge_s (local.get $gap) (i32.sub (local.get $end) (local.get $at)))
          (then
            (local.set $gap
              (i32.sub (local.get $gap) (i32.sub (local.get $end) (local.get $at))))
            (local.set $at (local.get $end))
            (br $done)))
        (br_if $done (i32.ge_s (local.get $changes) (local.get $changes_end)))
        (local.set $at (i32.add (local.get $at) (local.get $gap)))
        (i32.store8
          (local.get $at)
          (i32.add (i32.load8_u (local.get $at)) (i32.load8_u (local.get $changes))))
        (local.set $changes (i32.add (local.get $changes) (i32.const 1)))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (local.set $gap (i32.const -1))
        (br $each)))
    (i32.store (local.get $state) (local.get $gaps))
    (i32.store offset=4 (local.get $state) (local.get $changes))
    (i32.store offset=8 (local.get $state) (local.get $gap))
    (local.get $at))

  ;; Elements of tensors, see tensor-symbols.ts, from $at to $to of those that stand at $elements, 2 or 4 bytes each. $classes: kinds, shifts and streams of
  ;; gaps, shifts and streams of values, eight bytes of each; then how many elements of each class stay, and the classes of the keys. $lanes: where each
  ;; stream goes on in $arena; the twelfth has low bits. $held: bits that were read and not used, and how many.
  ;; Returns the first element that takes an escape or an error, as it was before it, or $to.
  (func (export "elements")
    (param $elements i32) (param $width i32) (param $at i32) (param $to i32)
    (param $classes i32) (param $arena i32) (param $lanes i32) (param $cursor i32) (result i32)
    (local $held i32) (local $count i32) (local $place i32) (local $word i32) (local $own i32) (local $left i32)
    (local $base i32) (local $kind i32) (local $lane i32) (local $value i32) (local $shift i32)
    (local.set $held (i32.load (local.get $cursor)))
    (local.set $count (i32.load offset=4 (local.get $cursor)))
    (block $done
      (loop $each
        (br_if $done (i32.ge_u (local.get $at) (local.get $to)))
        (local.set $place
          (i32.add (local.get $elements) (i32.mul (local.get $at) (local.get $width))))
        ;; The class, and the element in the order of the floats.
        (if (i32.eq (local.get $width) (i32.const 4))
          (then
            (local.set $word (i32.load (local.get $place)))
            (local.set $own (i32.shr_u (local.get $word) (i32.const 19)))
            (local.set $word
              (i32.xor
                (local.get $word)
                (i32.shr_u (i32.shr_s (local.get $word) (i32.const 31)) (i32.const 1)))))
          (else
            (local.set $word (i32.load16_s (local.get $place)))
            (local.set $own (i32.shr_u (local.get $word) (i32.const 3)))
            (local.set $word
              (i32.xor
                (local.get $word)
                (i32.and (i32.shr_s (local.get $word) (i32.const 15)) (i32.const 0x7fff))))))
        (local.set $own
          (i32.load8_u offset=72
            (i32.add (local.get $classes) (i32.and (local.get $own) (i32.const 0xfff)))))
        (local.set $own (i32.add (local.get $classes) (local.get $own)))
        ;; Four bytes for each class.
        (local.set $left
          (i32.add
            (local.get $own)
            (i32.mul (i32.sub (local.get $own) (local.get $classes)) (i32.const 3))))
        (local.set $value (i32.load offset=40 (local.get $left)))
        (block $next
          (if (i32.gt_s (local.get $value) (i32.const 0))
            (then
              (i32.store offset=40
                (local.get $left) (i32.sub (local.get $value) (i32.const 1)))
              (br $next)))
          (local.set $kind (i32.load8_u (local.get $own)))
          (local.set $base (i32.const 0))
          (if (i32.ne (local.get $kind) (i32.const 2))
            (then
              (local.set $base (i32.const 1))
              ;; One that never changes is not asked again.
              (if (i32.eqz (local.get $kind))
                (then
                  (i32.store offset=40 (local.get $left) (i32.const 0x7fffffff))
                  (br $next)))
              (if (i32.lt_s (local.get $value) (i32.const 0))
                (then
                  (local.set $lane
                    (i32.add
                      (local.get $lanes)
                      (i32.shl (i32.load8_u offset=16 (local.get $own)) (i32.const 2))))
                  (local.set $value
                    (i32.load8_u (i32.add (local.get $arena) (i32.load (local.get $lane)))))
                  (local.set $shift (i32.load8_u offset=8 (local.get $own)))
                  (br_if $done (i32.eq (local.get $value) (i32.const 255)))
                  (br_if $done
                    (i32.gt_u
                      (local.get $value)
                      (i32.shr_u (i32.const 0x7fffffff) (local.get $shift))))
                  (i32.store
                    (local.get $lane)
                    (i32.add (i32.load (local.get $lane)) (i32.const 1)))
                  (loop $bits
                    (if (i32.lt_u (local.get $count) (local.get $shift))
                      (then
                        (local.set $held
                          (i32.or
                            (local.get $held)
                            (i32.shl
                              (i32.load8_u
                                (i32.add
                                  (local.get $arena) (i32.load offset=44 (local.get $lanes))))
                              (local.get $count))))
                        (i32.store offset=44
                          (local.get $lanes)
                          (i32.add (i32.load offset=44 (local.get $lanes)) (i32.const 1)))
                        (local.set $count (i32.add (local.get $count) (i32.const 8)))
                        (br $bits))))
                  (local.set $value
                    (i32.or
                      (i32.shl (local.get $value) (local.get $shift))
                      (i32.and
                        (local.get $held)
                        (i32.sub
                          (i32.shl (i32.const 1) (local.get $shift)) (i32.const 1)))))
                  (local.set $held (i32.shr_u (local.get $held) (local.get $shift)))
                  (local.set $count (i32.sub (local.get $count) (local.get $shift)))
                  (if (i32.gt_s (local.get $value) (i32.const 0))
                    (then
                      (i32.store offset=40
                        (local.get $left) (i32.sub (local.get $value) (i32.const 1)))
                      (br $next)))
                  ;; Its turn has come; that is how it is left when the value takes an escape.
                  (i32.store offset=40 (local.get $left) (i32.const 0))))))
          (local.set $lane
            (i32.add
              (local.get $lanes)
              (i32.shl (i32.load8_u offset=32 (local.get $own)) (i32.const 2))))
          (local.set $value
            (i32.load8_u (i32.add (local.get $arena) (i32.load (local.get $lane)))))
          (br_if $done (i32.eq (local.get $value) (i32.const 255)))
          (i32.store (local.get $lane) (i32.add (i32.load (local.get $lane)) (i32.const 1)))
          (if (local.get $base) (then (i32.store offset=40 (local.get $left) (i32.const -1))))
          (local.set $shift (i32.load8_u offset=24 (local.get $own)))
          (if (local.get $shift)
            (then
              (loop $bits
                (if (i32.lt_u (local.get $count) (local.get $shift))
                  (then
                    (local.set $held
                      (i32.or
                        (local.get $held)
                        (i32.shl
                          (i32.load8_u
                            (i32.add
                              (local.get $arena) (i32.load offset=44 (local.get $lanes))))
                          (local.get $count))))
                    (i32.store offset=44
                      (local.get $lanes)
                      (i32.add (i32.load offset=44 (local.get $lanes)) (i32.const 1)))
                    (local.set $count (i32.add (local.get $count) (i32.const 8)))
                    (br $bits))))
              (local.set $value
                (i32.or
                  (i32.shl (local.get $value) (local.get $shift))
                  (i32.and
                    (local.get $held)
                    (i32.sub (i32.shl (i32.const 1) (local.get $shift)) (i32.const 1)))))
              (local.set $held (i32.shr_u (local.get $held) (local.get $shift)))
              (local.set $count (i32.sub (local.get $count) (local.get $shift)))))
          (local.set $value (i32.add (local.get $value) (local.get $base)))
          (local.set $word
            (i32.add
              (local.get $word)
              (i32.xor
                (i32.shr_u (local.get $value) (i32.const 1))
                (i32.sub (i32.const 0) (i32.and (local.get $value) (i32.const 1))))))
          (if (i32.eq (local.get $width) (i32.const 4))
            (then
              (i32.store
                (local.get $place)
                (i32.xor
                  (local.get $word)
                  (i32.shr_u (i32.shr_s (local.get $word) (i32.const 31)) (i32.const 1)))))
            (else
              (local.set $word
                (i32.shr_s (i32.shl (local.get $word) (i32.const 16)) (i32.const 16)))
              (i32.store16
                (local.get $place)
                (i32.xor
                  (local.get $word)
                  (i32.and
                    (i32.shr_s (local.get $word) (i32.const 15)) (i32.const 0x7fff)))))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $each)))
    (i32.store (local.get $cursor) (local.get $held))
    (i32.store offset=4 (local.get $cursor) (local.get $count))
    (local.get $at))
)
