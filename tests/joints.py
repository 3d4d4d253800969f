"""Prompts and answers in several scripts, with what is written between them: for every tokenizer, and every room."""

JOINTS: dict[str, tuple[str, str, str]] = {
    "Japanese": ("フランスの首都は", "", "パリ"),
    "Japanese, quoted": ("フランスの首都は「", "", "パリ"),
    "Japanese, Latin": ("フランスの首都は", "", "Paris"),
    "Japanese, within a word": ("日本の首都は東", "", "京"),
    "Chinese": ("法国的首都：", "", "巴黎"),  # noqa: RUF001
    "Chinese, after a figure": ("公元2020", "", "年"),
    "Thai": ("เมืองหลวงของฝรั่งเศสคือ", "", "ปารีส"),
    "Thai, Latin": ("เมืองหลวงของฝรั่งเศสคือ", " ", "Paris"),
    "Arabic": ("عاصمة فرنسا هي", " ", "باريس"),
    "Arabic, quoted": ("عاصمة فرنسا هي «", "", "باريس"),
    "Korean": ("프랑스의 수도는", " ", "파리"),
    "English, of Japanese": ("The Japanese for dog is", " ", "犬"),
    "English, open space": ("The capital of France is ", "", "Paris"),
    "English, open bracket": ("France (", "", "Paris"),
    "English, open quotation": ('The capital of France is "', "", "Paris"),
    "English, closed quotation": ('The word "dog"', " ", "means"),
    "English, apostrophe": ("It is the dogs'", " ", "bone"),
    "English, lines": ("Capital of France?\nAnswer:\n\n", "", "Paris"),
    "currency": ("The price is $", "", "5"),
    "code, call": ("print(", "", '"Paris")'),
    "code, text": ('print(f"', "", "Paris"),
    "code, list": ("x = [", "", "1"),
    "code, assignment": ("x =", " ", "1"),
    "code, block": ("def f(x):\n    ", "", "return x"),
}
