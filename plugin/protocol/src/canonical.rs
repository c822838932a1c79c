//! One way to write a JSON value, whoever writes it: the JSON Canonicalization Scheme (RFC 8785).
//!
//! For digests that others have to compute, too: members stand in order of their names, numbers as
//! ECMAScript writes them. Not here: what goes upstream, which keeps the order of its author.

use crate::json::{Json, Object};

impl Json {
    /// The bytes of this value in canonical form (RFC 8785).
    #[must_use]
    pub fn to_canonical_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        write(self, &mut bytes);
        bytes
    }
}

fn write(value: &Json, out: &mut Vec<u8>) {
    match value {
        Json::Float(number) => out.extend_from_slice(float(*number).as_bytes()),
        Json::Array(elements) => {
            out.push(b'[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(element, out);
            }
            out.push(b']');
        }
        Json::Object(object) => write_object(object, out),
        // These are written in one way only, and that is the canonical one.
        Json::Null | Json::Bool(_) | Json::Integer(_) | Json::String(_) => value.write(out),
    }
}

fn write_object(object: &Object, out: &mut Vec<u8>) {
    let mut members: Vec<(&str, &Json)> = object.iter().collect();
    // Section 3.2.3: by UTF-16 code units.
    members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    out.push(b'{');
    for (index, (name, value)) in members.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        Json::from(name).write(out);
        out.push(b':');
        write(value, out);
    }
    out.push(b'}');
}

/// A finite number as ECMAScript writes it (ECMA-262, Number::toString with radix 10).
fn float(number: f64) -> String {
    if number == 0.0 {
        return "0".into();
    }
    // The shortest digits that read as this number, the even ones of two as near. The formatter of the
    // standard library does not choose like that, so that its digits are not the ones of ECMAScript.
    let shortest = serde_json::to_string(&number.abs()).unwrap_or_default();
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0');
    let length = |text: &str| i32::try_from(text.len()).unwrap_or(i32::MAX);
    // The number is 0.DIGITS times ten to this power.
    let power =
        exponent.parse::<i32>().unwrap_or(0) + length(whole) - length(&all) + length(significant);
    let digits = significant.trim_end_matches('0').to_owned();
    let count = length(&digits);
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
    let split = |at: i32| digits.split_at_checked(usize::try_from(at).unwrap_or(0));
    let text = match power {
        1..=21 if count <= power => format!("{digits}{}", zeros(power - count)),
        1..=21 => match split(power) {
            Some((whole, fraction)) => format!("{whole}.{fraction}"),
            None => digits,
        },
        -5..=0 => format!("0.{}{digits}", zeros(-power)),
        _ => {
            let sign = if power > 0 { "+" } else { "-" };
            let exponent = (power - 1).abs();
            match split(1) {
                Some((first, "")) => format!("{first}e{sign}{exponent}"),
                Some((first, rest)) => format!("{first}.{rest}e{sign}{exponent}"),
                None => digits,
            }
        }
    };
    if number < 0.0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn canonical(text: &str) -> String {
        let json = Json::parse_answer(text.as_bytes()).unwrap();
        String::from_utf8(json.to_canonical_bytes()).unwrap()
    }

    #[test]
    fn the_example_of_the_rfc_is_written_as_it_says() {
        // Section 3.2.2, without the number that no client may send.
        let text = "{\"numbers\": [1E30, 4.50, 2e-3, 0.000000000000000000000000001],\
            \"string\": \"\\u20ac$\\u000F\\u000aA'\\u0042\\u0022\\u005c\\\\\\\"\\/\",\
            \"literals\": [null, true, false]}";
        assert_eq!(
            canonical(text),
            "{\"literals\":[null,true,false],\"numbers\":[1e+30,4.5,0.002,1e-27],\
             \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
        );
    }

    #[test]
    fn members_stand_in_the_order_of_the_rfc() {
        // Section 3.2.3.
        let text = r#"{"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\ud83d\ude00": 5, "\u0080": 6, "\u00f6": 7}"#;
        let written = canonical(text);
        let order: Vec<&str> = written
            .trim_matches(['{', '}'])
            .split(',')
            .map(|m| m.rsplit(':').next().unwrap())
            .collect();
        assert_eq!(order, ["2", "4", "6", "7", "1", "5", "3"]);
        assert_eq!(
            canonical(r#"{"b": {"d": 1, "c": [{"f": 2, "e": 3}]}, "a": 4}"#),
            r#"{"a":4,"b":{"c":[{"e":3,"f":2}],"d":1}}"#
        );
    }

    #[test]
    fn numbers_are_written_as_the_rfc_has_them() {
        // Appendix B.
        for (bits, text) in [
            (0x0000_0000_0000_0000, "0"),
            (0x8000_0000_0000_0000, "0"),
            (0x0000_0000_0000_0001, "5e-324"),
            (0x8000_0000_0000_0001, "-5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0xffef_ffff_ffff_ffff, "-1.7976931348623157e+308"),
            (0x4340_0000_0000_0000, "9007199254740992"),
            (0xc340_0000_0000_0000, "-9007199254740992"),
            (0x4430_0000_0000_0000, "295147905179352830000"),
            (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
            (0x44b5_2d02_c7e1_4af6, "1e+23"),
            (0x44b5_2d02_c7e1_4af7, "1.0000000000000001e+23"),
            (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
            (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
            (0x444b_1ae4_d6e2_ef50, "1e+21"),
            (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
            (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
            (0x41b3_de43_5555_5553, "333333333.3333332"),
            (0x41b3_de43_5555_5557, "333333333.33333343"),
            (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
            (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
        ] {
            assert_eq!(float(f64::from_bits(bits)), text);
        }
    }

    #[test]
    fn what_means_the_same_is_written_the_same() {
        for same in
            [r#"{"a":5.0,"b":"x"}"#, r#"{ "b" : "\u0078", "a" : 5 }"#, r#"{"a":5e0,"b":"x"}"#]
        {
            assert_eq!(canonical(same), r#"{"a":5,"b":"x"}"#);
        }
    }
}
