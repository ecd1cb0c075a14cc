"""Names, streets and towns for made-up patients. Any likeness to a living person is chance."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FEMALE = _words(
    """
    Abigail Alma Amara Anita Astrid Beatrice Bianca Camila Carmen Chloe Clara Daphne Delia
    Elena Eliza Esther Fatima Flora Freya Gina Hazel Helen Imani Ines Irene Jade Joan Josie
    Kavya Keiko Lara Leona Lila Lucia Mabel Maeve Mei Mina Nadia Naomi Nina Olive Paige Petra
    Priya Renata Rosalind Ruth Sabine Salma Selma Sofia Talia Thea Uma Viola Wilma Yara Yvette
    Zelda
    """
)
MALE = _words(
    """
    Aaron Abel Adil Albert Amos Andre Arjun Arthur Basil Bruno Caleb Carlos Cyril Dalton
    Desmond Dmitri Edgar Elias Emil Enzo Ezra Farid Gideon Glenn Hamid Harvey Hector Ivan
    Jasper Joel Julius Kenji Lamar Leon Lionel Luis Magnus Malik Mateo Milan Nadir Nestor Omar
    Oscar Otto Percy Quentin Rafael Ravi Reuben Samir Silas Simon Tariq Theo Tomas Victor
    Walter Yosef Zane
    """
)
FAMILY = _words(
    """
    Abara Ackland Albright Almeida Anand Arden Ashdown Baptiste Barlow Beaumont Bellweather
    Benitez Bhatt Blackwood Bonner Brandt Calloway Cardoso Castellan Chandra Chavez Copeland
    Corwin Crane Dalca Darrow Delacroix Dempsey Devlin Dubois Eastman Eklund Ellery Escobar
    Fairbanks Farouk Fenwick Ferreira Finch Fontaine Galloway Garrick Gupta Haddad Halloran
    Hargrove Hashimoto Hawthorne Hendricks Holloway Ibarra Ingram Iyer Jankowski Jardine Kane
    Kaplan Kessler Khalil Kimura Kowalski Lachance Langley Larkin Leclerc Lindgren Lockwood
    Lozano Mackey Maddox Mallory Marchetti Mendoza Merriweather Mistry Montrose Moreau
    Nakamura Navarro Nguyen Novak Oduya Okafor Oleander Ortega Osborne Pacheco Palmer Pelham
    Pereira Petrov Pike Prescott Quigley Quintero Radcliffe Rahman Ramsey Redfern Renner
    Rinaldi Rosario Rutledge Salazar Sandoval Santoro Sato Schaefer Sedgwick Serrano Shah
    Sinclair Sorensen Stavros Sterling Sung Tanaka Teller Thackeray Thorne Tran Trujillo Tully
    Upton Valdez Vasquez Vega Voss Wakefield Wexler Whitlock Winslow Wong Yamada Yoder Zamora
    Zeller
    """
)
STREETS = _words(
    """
    Alder Anchor Beacon Birch Canal Chapel Cherry Clay Cobble Court Dock Elm Ferry Garden
    Granite Harbor Hill Juniper Kiln Lantern Linden Locust Maple Market Meadow Mill Orchard
    Park Pearl Pond Quarry River Spruce Summit Tanner Vine Walnut Water Willow Winter
    """
)
STREET_KINDS = ("Street", "Avenue", "Road", "Lane", "Terrace")
TOWNS = (
    ("Boston", "02118", "617"),
    ("Boston", "02127", "617"),
    ("Cambridge", "02139", "617"),
    ("Somerville", "02143", "617"),
    ("Quincy", "02169", "617"),
    ("Newton", "02458", "617"),
    ("Worcester", "01605", "508"),
    ("Lowell", "01852", "978"),
    ("Springfield", "01105", "413"),
    ("Salem", "01970", "978"),
)
EMPLOYERS = (
    "Harbor Logistics", "Bay Street Bakery", "Northlight Software", "Granite Savings Bank",
    "Pilgrim School District", "Commonwealth Transit", "Riverside Foods", "self-employed",
    "retired", "student",
)  # fmt: skip
LANGUAGES = ("English",) * 8 + ("Spanish", "Spanish", "Portuguese", "Haitian Creole", "Chinese")
PAYERS = (
    ("Bayline Health", "Bayline Choice"),
    ("Bayline Health", "Bayline Basic"),
    ("Commonwealth Mutual", "Mutual Plus"),
    ("Pioneer Care", "Pioneer HMO"),
    ("Federal senior program", "Part A and B"),
    ("State assistance program", "Standard"),
)
