//! A writer of small MMDB files, so that tests say themselves what is in them.
//!
//! Format: <https://maxmind.github.io/MaxMind-DB/>. IPv4 only, 24-bit records, nothing shared.

/// A value of the data section.
pub(crate) enum Data {
    Text(&'static str),
    Number(u32),
    Real(f64),
    Map(Vec<(&'static str, Data)>),
}

/// A file that says this about each of these networks (`A.B.C.D/N`).
pub(crate) fn mmdb(kind: &str, networks: &[(&str, Data)]) -> Vec<u8> {
    // Node → its two branches: another node, data (a number past the networks), or nothing.
    #[derive(Clone, Copy, PartialEq)]
    enum Branch {
        Nothing,
        Node(usize),
        Data(usize),
    }
    let mut nodes = vec![[Branch::Nothing; 2]];
    let mut data = Vec::new();
    let mut places = Vec::new();
    for (network, value) in networks {
        let (address, length) = network.split_once('/').unwrap();
        let address = u32::from(address.parse::<std::net::Ipv4Addr>().unwrap());
        let length: usize = length.parse().unwrap();
        let mut node = 0;
        for bit in 0..length {
            let side = usize::from(address >> (31 - bit) & 1 == 1);
            if bit + 1 == length {
                nodes[node][side] = Branch::Data(places.len());
            } else if let Branch::Node(next) = nodes[node][side] {
                node = next;
            } else {
                nodes.push([Branch::Nothing; 2]);
                nodes[node][side] = Branch::Node(nodes.len() - 1);
                node = nodes.len() - 1;
            }
        }
        places.push(data.len());
        write(value, &mut data);
    }
    let count = nodes.len();
    let mut file = Vec::new();
    for branch in nodes.iter().flatten() {
        let record = match branch {
            Branch::Nothing => count,
            Branch::Node(node) => *node,
            // Data starts after the tree and a separator of 16 bytes.
            Branch::Data(number) => count + 16 + places[*number],
        };
        file.extend_from_slice(&u32::try_from(record).unwrap().to_be_bytes()[1..]);
    }
    file.extend_from_slice(&[0; 16]);
    file.extend_from_slice(&data);
    file.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    let mut metadata = vec![0xE9];
    let mut entry = |name: &str, value: &[u8]| {
        text(name, &mut metadata);
        metadata.extend_from_slice(value);
    };
    let uint16 = |number: u16| [&[0xA2][..], &number.to_be_bytes()].concat();
    let uint32 = |number: u32| [&[0xC4][..], &number.to_be_bytes()].concat();
    let uint64 = |number: u64| [&[0x08, 0x02][..], &number.to_be_bytes()].concat();
    let mut words = Vec::new();
    text(kind, &mut words);
    entry("node_count", &uint32(u32::try_from(count).unwrap()));
    entry("record_size", &uint16(24));
    entry("ip_version", &uint16(4));
    entry("database_type", &words);
    entry("languages", &[0x00, 0x04]);
    entry("binary_format_major_version", &uint16(2));
    entry("binary_format_minor_version", &uint16(0));
    entry("build_epoch", &uint64(1_800_000_000));
    let mut described = vec![0xE1];
    text("en", &mut described);
    text("made by a test", &mut described);
    entry("description", &described);
    file.extend_from_slice(&metadata);
    file
}

/// Like GeoLite2-ASN.
pub(crate) fn asn(networks: &[(&str, u32, &'static str)]) -> Vec<u8> {
    let data = networks.iter().map(|(network, number, name)| {
        let number = ("autonomous_system_number", Data::Number(*number));
        (*network, Data::Map(vec![number, ("autonomous_system_organization", Data::Text(name))]))
    });
    mmdb("GeoLite2-ASN", &data.collect::<Vec<_>>())
}

/// Like GeoLite2-City.
pub(crate) fn geo(networks: &[(&str, &'static str, f64, f64)]) -> Vec<u8> {
    let data = networks.iter().map(|(network, country, latitude, longitude)| {
        let location = vec![("latitude", Data::Real(*latitude)), ("longitude", Data::Real(*longitude))];
        let country = ("country", Data::Map(vec![("iso_code", Data::Text(country))]));
        (*network, Data::Map(vec![country, ("location", Data::Map(location))]))
    });
    mmdb("GeoLite2-City", &data.collect::<Vec<_>>())
}

fn text(text: &str, out: &mut Vec<u8>) {
    // Up to 28 bytes the length stands in the control byte; up to 284 in one more.
    match u8::try_from(text.len()).unwrap() {
        short @ 0..29 => out.push(0x40 | short),
        long => out.extend_from_slice(&[0x40 | 29, long - 29]),
    }
    out.extend_from_slice(text.as_bytes());
}

fn write(value: &Data, out: &mut Vec<u8>) {
    match value {
        Data::Text(value) => text(value, out),
        Data::Number(number) => {
            out.push(0xC4);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Data::Real(number) => {
            out.push(0x68);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Data::Map(entries) => {
            out.push(0xE0 | u8::try_from(entries.len()).unwrap());
            for (name, value) in entries {
                text(name, out);
                write(value, out);
            }
        }
    }
}
